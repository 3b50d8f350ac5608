"""Retraining: what is to be trained, the training itself, and its results on the front."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from pipeline.batchnorm import recalibrated
from pipeline.errors import InvalidValueError
from pipeline.events import Epoch, EpochListener
from pipeline.files import write_atomically
from pipeline.front import Front, Retrained, select
from pipeline.jobs.training import SCORED, finite, report_epochs, score_split
from pipeline.paths import ExecutionPath
from pipeline.recipe import RetrainSettings
from pipeline.run import Run
from pipeline.statistics import StatisticsFolder
from pipeline.tasks.registry import create_task
from pipeline.tasks.task import Score
from pipeline.tracking import Tracking
from pipeline.weights import write_state


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


def retrain(
    run: Run, job: RetrainJob, *, on_epoch: EpochListener | None = None
) -> list[PathResult]:
    """Runs a job, or returns what it left if it was finished with the same settings before.

    Returns:
        One result for each path. Mode ``shared`` always has the full path among them.
    """
    folder = job.folder(run)
    settings = run.recipe.retrain
    order = {
        "paths": [dict(path) for path in job.paths],
        "settings": settings.model_dump(mode="json"),
    }
    finished = _read_json(folder / "result.json")
    if finished is not None and finished["order"] == order:
        return [_result(entry) for entry in finished["results"]]
    if _read_json(folder / "order.json") != order:
        shutil.rmtree(folder, ignore_errors=True)
        write_atomically(folder / "order.json", json.dumps(order))
    train = _train_shared if job.mode == "shared" else _train_separate
    results = train(run, job, settings, folder, on_epoch)
    entries = [
        {"path": dict(r.path), "validation": asdict(r.validation), "test": asdict(r.test)}
        for r in results
    ]
    write_atomically(folder / "result.json", json.dumps({"order": order, "results": entries}))
    shutil.rmtree(folder / "training", ignore_errors=True)
    return results


def retrain_tracked(
    run: Run, job: RetrainJob, tracking: Tracking, *, on_epoch: EpochListener | None = None
) -> list[PathResult]:
    """Runs a job with one tracked run for each path that it trains; see :func:`retrain`."""
    front = run.front()
    points = {point.path: point for point in (*front.points, front.full)}
    paths = list(dict.fromkeys([*job.paths, *([run.space.full] if job.mode == "shared" else [])]))
    recipe = run.recipe.dump()
    trackers = {
        path.id: tracking.start(
            "retrain",
            f"{job.mode}-{path.id}",
            config={"mode": job.mode, "path_id": path.id, "decisions": dict(path), **recipe},
        )
        for path in paths
    }

    def listen(epoch: Epoch) -> None:
        for path_id, tracker in trackers.items():
            values = {"epoch": float(epoch.number), "train_loss": epoch.loss}
            if path_id in epoch.metrics:
                values["validation_accuracy"] = epoch.metrics[path_id]
            tracker.log(values, step=epoch.number)
        if on_epoch:
            on_epoch(epoch)

    results = retrain(run, job, on_epoch=listen)
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
    folder: Path,
    on_epoch: EpochListener | None,
) -> list[PathResult]:
    from pipeline.retrain import SharedTraining
    from pipeline.trainer import fit

    model = run.load_model()
    paths = list(dict.fromkeys([*job.paths, run.space.full]))
    task = create_task(run.recipe.task, training=settings)
    costs = run.table(paths)[run.recipe.search.cost].tolist()
    module = SharedTraining(model, paths, settings, task, costs=costs)
    report = report_epochs(run, model, paths, on_epoch, shared=True)
    loader = run.data.loader("train", shuffle_seed=settings.seed)
    fit(module, loader, checkpoint_dir=folder / "training", report=report)
    model.to(run.device)
    write_state(folder / "weights.safetensors", model.state_dict())
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
    folder: Path,
    on_epoch: EpochListener | None,
) -> list[PathResult]:
    from pipeline.retrain import SeparateTraining
    from pipeline.trainer import EpochReport, fit

    (path,) = job.paths
    teacher = run.load_model()
    statistics = StatisticsFolder(run.statistics_dir(shared=False))[path]
    with recalibrated(teacher, statistics):
        student = teacher.extract(path)
    task = create_task(run.recipe.task, training=settings)
    module = SeparateTraining(student, teacher, settings, task)

    def validate() -> Mapping[str, float]:
        return {path.id: score_split(run, student, "validation").value}

    report = EpochReport(on_epoch, validate=validate) if on_epoch else None
    loader = run.data.loader("train", shuffle_seed=settings.seed)
    fit(module, loader, checkpoint_dir=folder / "training", report=report)
    student.to(run.device)
    write_state(folder / "weights.safetensors", student.state_dict())
    validation, test = (score_split(run, student, split) for split in SCORED)
    return [PathResult(path, validation, test)]


def _result(entry: Mapping[str, Any]) -> PathResult:
    path = ExecutionPath(entry["path"])
    return PathResult(path, Score(**entry["validation"]), Score(**entry["test"]))


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
