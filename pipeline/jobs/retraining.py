"""Retraining: what is to be trained, the training itself, and its results on the front."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from torch import nn

from pipeline.batchnorm import recalibrated
from pipeline.errors import InvalidValueError
from pipeline.events import Epoch, EpochListener
from pipeline.files import write_atomically
from pipeline.front import Front, Retrained, select
from pipeline.jobs.progress import Progress, read_json
from pipeline.jobs.training import SCORED, finite, report_epochs, score_split
from pipeline.paths import ExecutionPath
from pipeline.recipe import RetrainSettings
from pipeline.run import Run, environment
from pipeline.statistics import StatisticsFolder
from pipeline.tasks.registry import create_task
from pipeline.tasks.task import Score
from pipeline.tracking import Tracking, forget_run
from pipeline.weights import write_described

if TYPE_CHECKING:
    from pipeline.interruption import Signals
    from pipeline.trainer import Processes

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class RetrainJob:
    """One retraining, as a cluster would run it: it needs the run directory and nothing else.

    Attributes:
        directory: the run's.
        mode: ``shared`` or ``separate``.
        paths: what it trains; exactly one in mode ``separate``.
    """

    directory: Path
    mode: str
    paths: tuple[ExecutionPath, ...]

    @property
    def name(self) -> str:
        """For people and W&B: the mode, and the path's id if it is about one."""
        return self.mode if self.mode == "shared" else f"{self.mode}-{self.paths[0].id}"

    def folder(self, run: Run) -> Path:
        """Where its files are."""
        return run.retrained_dir(self.mode, None if self.mode == "shared" else self.paths[0].id)

    def tracked(self, run: Run) -> dict[str, ExecutionPath]:
        """The paths that it measures, by the name of the run that tracks each."""
        also = [run.space.full] if self.mode == "shared" else []
        return {f"{self.mode}-{path.id}": path for path in dict.fromkeys([*self.paths, *also])}

    def order(self, run: Run) -> dict[str, Any]:
        """What is asked for: a training of another order begins anew."""
        settings = run.recipe.retrain.model_dump(mode="json")
        return {"paths": [dict(path) for path in self.paths], "settings": settings}


@dataclass(frozen=True)
class Part:
    """The part of one process in a job that several processes may share.

    Attributes:
        processes: that train together; one alone if None.
        signals: at which it stops; None for a training that people watch.
    """

    processes: "Processes | None" = None
    signals: "Signals | None" = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes, measures and tracks."""
        return self.processes is None or self.processes.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """What ``DataSplits.loader`` takes."""
        return self.processes.share if self.processes else (0, 1)


WHOLE = Part()


@dataclass(frozen=True)
class PathResult:
    """What a retraining made of one path."""

    path: ExecutionPath
    validation: Score
    test: Score

    def retrained(self) -> Retrained:
        """The same as a field of a front's point."""
        return Retrained(
            accuracy=self.validation.value,
            error=self.validation.error,
            test_accuracy=self.test.value,
            test_error=self.test.error,
        )


def plan_retraining(run: Run, *, selection: str, mode: str) -> list[RetrainJob]:
    """The jobs that retrain a selection of the front: one in mode ``shared``, one a path in
    ``separate``.
    """
    if mode not in ("shared", "separate"):
        raise InvalidValueError(f"mode must be shared or separate, but got {mode!r}")
    paths = tuple(run.space.canonical(point.path) for point in select(run.front(), selection))
    if mode == "shared":
        return [RetrainJob(run.directory, mode, paths)]
    return [RetrainJob(run.directory, mode, (path,)) for path in paths]


def prepare(run: Run, job: RetrainJob) -> None:
    """Clears a job's folder, and the tracked runs, of a training that was of another order."""
    folder, order = job.folder(run), job.order(run)
    if read_json(folder / "order.json") != order:
        shutil.rmtree(folder, ignore_errors=True)
        for name in job.tracked(run):
            forget_run(run.directory, name)
        write_atomically(folder / "order.json", json.dumps(order))


def finished(run: Run, job: RetrainJob) -> list[PathResult] | None:
    """What a job left if it was finished with the same settings before; else None."""
    found = read_json(job.folder(run) / "result.json")
    if found is None or found["order"] != job.order(run):
        return None
    return [_result(entry) for entry in found["results"]]


def retrain(
    run: Run, job: RetrainJob, *, on_epoch: EpochListener | None = None, part: Part = WHOLE
) -> list[PathResult]:
    """Runs a job, or returns what it left if it was finished with the same settings before.

    Args:
        run: gets the weights and ``result.json``.
        job: of :func:`plan_retraining`.
        on_epoch: hears how training goes.
        part: this process's, where several train together; only the first writes anything.

    Returns:
        One result for each path, in the first process. Mode ``shared`` always has the full path
        among them.

    Raises:
        Interrupted: the job was told to stop; called again, it goes on.
    """
    known = finished(run, job)
    if known is not None:
        return known
    folder = job.folder(run)
    progress = Progress(run.recipe.retrain.epochs)
    if part.is_first:
        prepare(run, job)
        progress = (Progress.load(folder) or progress).begun()
        progress.save(folder)

    def listen(epoch: Epoch) -> None:
        nonlocal progress
        progress = progress.after(epoch)
        progress.save(folder)
        if on_epoch:
            on_epoch(epoch)

    train = _train_shared if job.mode == "shared" else _train_separate
    try:
        results = train(run, job, run.recipe.retrain, listen, part)
    except (Exception, KeyboardInterrupt) as error:
        if part.is_first:
            progress.ended(_why(error)).save(folder)
        raise
    if not part.is_first:
        return []
    entries = [
        {"path": dict(r.path), "validation": asdict(r.validation), "test": asdict(r.test)}
        for r in results
    ]
    content = {"order": job.order(run), "results": entries}
    write_atomically(folder / "result.json", json.dumps(content))
    progress.ended("done").save(folder)
    shutil.rmtree(folder / "training", ignore_errors=True)
    return results


def retrain_tracked(
    run: Run,
    job: RetrainJob,
    tracking: Tracking,
    *,
    on_epoch: EpochListener | None = None,
    part: Part = WHOLE,
) -> list[PathResult]:
    """Runs a job with one tracked run for each path that it trains; see :func:`retrain`."""
    front = run.front()
    points = {point.path: point for point in (*front.points, front.full)}
    if part.is_first and finished(run, job) is None:
        prepare(run, job)
    recipe = run.recipe.dump()
    trackers = {
        path.id: tracking.start(
            "retrain",
            name,
            config={"mode": job.mode, "path_id": path.id, "decisions": dict(path), **recipe},
        )
        for name, path in job.tracked(run).items()
    }

    def track(epoch: Epoch) -> None:
        for path_id, tracker in trackers.items():
            values = {"epoch": float(epoch.number), "train_loss": epoch.loss}
            if path_id in epoch.metrics:
                values["validation_accuracy"] = epoch.metrics[path_id]
            tracker.log(values, step=epoch.number)

    def listen(epoch: Epoch) -> None:
        track(epoch)
        if on_epoch:
            on_epoch(epoch)

    before_this = Progress.load(job.folder(run)) if part.is_first else None
    for epoch in before_this.epochs if before_this else ():
        track(epoch)  # what an attempt that was killed may not have handed over; known ones pass
    results = retrain(run, job, on_epoch=listen, part=part)
    for result in results:
        tracker = trackers[result.path.id]
        before = points[result.path]
        tracker.summarize(
            {
                "accuracy_before": before.accuracy,
                "accuracy_after": result.validation.value,
                "accuracy_error": result.validation.error,
                "test_accuracy_before": before.test_accuracy,
                "test_accuracy_after": result.test.value,
                "energy_mj": before.energy_mj,
                "latency_ms": before.latency_ms,
                "macs": before.macs,
                "params": before.params,
            }
        )
        tracker.finish()
    return results


def collect(run: Run, mode: str, results: Sequence[PathResult]) -> Front:
    """Puts results of retraining into the front and saves it.

    A new shared training replaces the weights of the one before, so accuracies of paths that are no
    longer in it go.
    """
    by_id = {result.path.id: result.retrained() for result in results}
    front = run.front()
    points = {point.id: point for point in (*front.points, front.full)}
    changed = []
    for point in points.values():
        retrained = dict(point.retrained)
        if mode == "shared":
            retrained.pop(mode, None)
        if point.id in by_id:
            retrained[mode] = by_id[point.id]
        changed.append(replace(point, retrained=retrained))
    front = front.updated(changed)
    front.save(run.front_file)
    return front


def _train_shared(
    run: Run,
    job: RetrainJob,
    settings: RetrainSettings,
    on_epoch: EpochListener,
    part: Part,
) -> list[PathResult]:
    from pipeline.retrain import SharedTraining

    model = run.load_model()
    paths = list(dict.fromkeys([*job.paths, run.space.full]))
    task = create_task(run.recipe.task, training=settings)
    costs = run.table(paths)[run.recipe.search.cost].tolist()
    module = SharedTraining(model, paths, settings, task, costs=costs)
    report = report_epochs(run, model, paths, on_epoch, shared=True)
    _fit(run, job, module, report, part)
    if not part.is_first:
        return []
    model = _trained(run, job, model, "model.", part)
    validation, test = (
        run.evaluator(model, split, shared=True, keep=True)(paths) for split in SCORED
    )
    return [
        PathResult(path, finite(v), finite(t))
        for path, v, t in zip(paths, validation, test, strict=True)
    ]


def _train_separate(
    run: Run,
    job: RetrainJob,
    settings: RetrainSettings,
    on_epoch: EpochListener,
    part: Part,
) -> list[PathResult]:
    from pipeline.retrain import SeparateTraining
    from pipeline.trainer import EpochReport

    (path,) = job.paths
    teacher, student = run.load_model(), _fresh(run, job)
    task = create_task(run.recipe.task, training=settings)
    module = SeparateTraining(student, teacher, settings, task)

    def validate() -> Mapping[str, float]:
        return {path.id: score_split(run, student, "validation").value}

    _fit(run, job, module, EpochReport(on_epoch, validate=validate), part)
    if not part.is_first:
        return []
    student = _trained(run, job, student, "student.", part)
    validation, test = (score_split(run, student, split) for split in SCORED)
    return [PathResult(path, validation, test)]


def _fit(run: Run, job: RetrainJob, module: Any, report: Any, part: Part) -> None:
    """This process's part of a training, from its last checkpoint to its end."""
    from pipeline.trainer import ALONE, fit

    loader = run.data.loader("train", shuffle_seed=run.recipe.retrain.seed, share=part.share)
    fit(
        module,
        loader,
        checkpoint_dir=job.folder(run) / "training",
        report=report,
        processes=part.processes or ALONE,
        device=run.device,
        signals=part.signals,
    )


def _trained(run: Run, job: RetrainJob, model: M, prefix: str, part: Part) -> M:
    """The trained model on the run's device, its weights written beside what they are."""
    if part.processes and part.processes.strategy == "fsdp":
        from pipeline.trainer import trained_state

        # the processes hold shards, so the weights come from the last checkpoint
        state = trained_state(job.folder(run) / "training", prefix)
        model = _fresh(run, job).to("cpu")  # type: ignore[assignment]
        model.load_state_dict(state)
    write_described(
        job.folder(run) / "weights.safetensors",
        model.state_dict(),
        {
            "mode": job.mode,
            "paths": [dict(path) for path in job.paths],
            "recipe": run.recipe.dump(),
            "versions": environment(run.device),
        },
    )
    return model.to(run.device)


def _fresh(run: Run, job: RetrainJob) -> nn.Module:
    """The model of a job before its training."""
    model = run.load_model()
    if job.mode == "shared":
        return model
    (path,) = job.paths
    with recalibrated(model, StatisticsFolder(run.statistics_dir(shared=False))[path]):
        return model.extract(path)


def _why(error: BaseException) -> str:
    """Why an attempt ended, in one line."""
    from pipeline.interruption import Interrupted

    if isinstance(error, Interrupted):
        return error.cause
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by hand"
    lines = str(error).strip().splitlines()
    return f"failed: {type(error).__name__}: {lines[-1] if lines else ''}"


def _result(entry: Mapping[str, Any]) -> PathResult:
    path = ExecutionPath(entry["path"])
    return PathResult(path, Score(**entry["validation"]), Score(**entry["test"]))
