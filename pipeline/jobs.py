"""The jobs of a run: base weights, search, retraining, evaluation. Each resumes.

Lightning and torch-pruning are imported by the jobs that need them: they take seconds, and most commands don't.
"""

import json
import math
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from pipeline.cost import CostModel, CostTable
from pipeline.cost import create as create_cost_model
from pipeline.elastic import ElasticModel
from pipeline.errors import InvalidValueError, RunDirectoryError, nearest
from pipeline.evaluate import score_model
from pipeline.events import EpochListener
from pipeline.files import write_atomically
from pipeline.front import Front, Point, Retrained, TrialRecord, select
from pipeline.measure import Comparison, compare, measure_paths, predict
from pipeline.paths import ExecutionPath
from pipeline.recipe import RetrainSettings
from pipeline.report import ReportRun, UnitCost, write_report
from pipeline.run import Run, environment
from pipeline.search import SearchProgress, SearchSettings, search
from pipeline.tasks.registry import create_task
from pipeline.tasks.task import Score
from pipeline.weights import load_into, write_state

if TYPE_CHECKING:
    from pipeline.data import SplitName
    from pipeline.retrain import EpochReport

SCORED: tuple["SplitName", "SplitName"] = ("validation", "test")


def prepare_weights(run: Run, *, on_epoch: EpochListener | None = None) -> None:
    """Makes the elastic weights of a run, unless it has them: loaded, or trained; then sorted by importance.

    Training runs the full path and, where there are exits, the fullest path to each of them.

    Args:
        run: gets its weights file.
        on_epoch: hears how training goes.
    """
    if run.weights_file.is_file():
        return
    from pipeline.importance import sort_channels
    from pipeline.retrain import SharedTraining, exit_paths, fit

    settings = run.recipe.train
    torch.manual_seed(settings.seed)
    model = run.space.build(run.recipe.weights)
    if run.recipe.weights is None:
        task = create_task(run.recipe.task, training=settings)
        paths = exit_paths(model)
        every_path = settings.model_copy(update={"paths_per_step": len(paths)})
        module = SharedTraining(model, paths, every_path, task, distil=False)
        report = _report(run, model, [run.space.full], on_epoch)
        checkpoints = run.directory / "training"
        fit(
            module,
            run.data.loader("train", shuffle_seed=settings.seed),
            checkpoint_dir=checkpoints,
            report=report,
        )
    model.to("cpu").eval()
    sort_channels(model, torch.zeros(1, *run.space.input_shape))
    write_state(run.weights_file, model.state_dict())
    shutil.rmtree(run.directory / "training", ignore_errors=True)


def search_run(run: Run, *, on_progress: Callable[[SearchProgress], None] | None = None) -> Front:
    """Searches a run whose weights are there, and saves its front with test accuracies.

    Raises:
        RunDirectoryError: every trial failed.
        InvalidValueError: no path fits the budgets.
    """
    recipe = run.recipe.search
    settings = SearchSettings(
        trials=recipe.trials,
        seed=recipe.seed,
        sampler=recipe.sampler,
        generation=recipe.generation,
        cost=recipe.cost,
        budgets=run.budgets,
    )
    model = run.load_model()
    evaluator = run.evaluator(model, "validation")
    search(
        run.space, run.table, evaluator, settings, run_dir=run.directory, on_progress=on_progress
    )
    front = with_test(run, model, make_front(run, run.trials()))
    front.save(run.front_file)
    return front


def save_report(run: Run, file: Path | None = None) -> None:
    """Writes the report of a run that has a front: to the run directory, or to another file."""
    front = run.front()
    points = {point.id: point for point in (*front.points, front.full)}
    unit_costs = {
        point.id: [
            UnitCost(c.unit, {"energy_mj": c.energy_mj, "latency_ms": c.latency_ms, "macs": c.macs})
            for c in run.table.breakdown(point.path)
        ]
        for point in points.values()
    }
    versions = {k: str(v) for k, v in environment(run.device).items() if v is not None}
    shown = ReportRun(run.directory.name, front, run.trials(), unit_costs, versions)
    write_report(file or run.report_file, [shown], title=run.recipe.name)


def make_front(run: Run, trials: Sequence[TrialRecord]) -> Front:
    """The front of finished trials: those within the budgets, with the full path as the baseline.

    Raises:
        RunDirectoryError: no trial gave an accuracy within the budgets, or the full path's failed.
    """
    points = {t.path: Point.of_trial(t) for t in trials if t.state == "complete"}
    fitting = [
        point
        for point in points.values()
        if all(getattr(point, name) <= bound for name, bound in run.budgets.items())
    ]
    if not fitting or run.space.full not in points:
        reasons = {t.failure for t in trials if t.failure}
        raise RunDirectoryError(
            f"no front: {len(fitting)} of {len(trials)} trials have an accuracy within the budgets, and the full "
            f"path {'has one' if run.space.full in points else 'has none'}"
            + (f"; the failures: {'; '.join(sorted(reasons)[:3])}" if reasons else "")
        )
    return Front.of(
        fitting,
        full=points[run.space.full],
        recipe=run.recipe.dump(),
        hardware=run.table.cost_model.hardware,
        metric=run.task.metric,
        cost=run.recipe.search.cost,
    )


def with_test(run: Run, model: ElasticModel, front: Front) -> Front:
    """The front with test accuracies of its points and of the full path, before retraining."""
    points = list({point.id: point for point in (*front.points, front.full)}.values())
    scores = run.evaluator(model, "test")([point.path for point in points])
    return front.updated(
        replace(point, test_accuracy=score.value, test_error=score.error)
        for point, score in zip(points, scores, strict=True)
        if isinstance(score, Score)
    )


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
    """The jobs that retrain a selection of the front: one in mode ``shared``, one a path in ``separate``."""
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


def collect(run: Run, mode: str, results: Sequence[PathResult]) -> Front:
    """Puts results of retraining into the front and saves it.

    A new shared training replaces the weights of the one before, so accuracies of paths that are no longer in it go.
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


def evaluate_run(run: Run, path_ids: Sequence[str] = ()) -> list[dict[str, Any]]:
    """Measures paths of the front anew from the weights on disk, on validation and test.

    Args:
        run: with a front.
        path_ids: which paths; the whole front and the full path by default.

    Returns:
        For each path and kind of weights that exist: ``id``, ``weights`` (``search``, ``shared`` or ``separate``),
        ``validation`` and ``test`` scores.
    """
    front = run.front()
    everyone = {point.id: point for point in (*front.points, front.full)}
    points = [front[i] for i in path_ids] if path_ids else list(everyone.values())
    rows = _score_elastic(run, run.load_model(), "search", points)
    shared = [p for p in points if "shared" in p.retrained]
    if shared:
        weights = run.retrained_dir("shared") / "weights.safetensors"
        rows += _score_elastic(run, run.load_model(weights), "shared", shared)
    for point in points:
        if "separate" in point.retrained:
            module = load_separate(run, point.path)
            row: dict[str, Any] = {"id": point.id, "weights": "separate"}
            rows.append(row | {split: _score_plain(run, module, split) for split in SCORED})
    return rows


def measure_run(
    run: Run,
    *,
    selection: str = "all",
    batch_size: int = 1,
    threads: int | None = None,
    rounds: int = 10,
    on_turn: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Measures the latency of paths of the front on the run's device, beside three predictions.

    The predictions: the device model (units measured in place, then added), the recipe's cost model, and MACs.

    Args:
        run: with a front.
        selection: which paths, see :func:`pipeline.front.select`.
        batch_size: images at once; latencies are for one image.
        threads: of the CPU; torch's own number by default.
        rounds: how often each path's turn comes.
        on_turn: told (turns done, turns in all).
    """
    front = run.front()
    paths = [point.path for point in select(front, selection)]
    device = create_cost_model(
        "device",
        device=str(run.device),
        batch_size=batch_size,
        threads=threads,
        cache_dir=run.directory / "measured",
    )
    models: dict[str, CostModel] = {
        "device": device,
        run.recipe.hardware.model: run.table.cost_model,
    }
    predictions = predict(run.space, paths, models)
    measured = measure_paths(
        run.load_model(),
        paths,
        device=str(run.device),
        batch_size=batch_size,
        threads=threads,
        rounds=rounds,
        progress=on_turn,
    )
    return compare(measured, predictions, hardware=device.hardware)


@dataclass(frozen=True)
class Rescored:
    """Paths of a front priced by another cost model.

    Attributes:
        hardware: the other cost model's.
        rows: for each path its ``id``, and ``energy_mj`` and ``latency_ms`` before and now.
    """

    hardware: str
    rows: tuple[dict[str, Any], ...]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def rescore(run: Run, points: Sequence[Point], kind: str) -> Rescored:
    """Prices points of a front with the mapper on the same hardware, or with the device.

    Args:
        run: whose recipe names the hardware.
        points: of its front.
        kind: ``mapper`` or ``device``; what they find is kept in the run directory.
    """
    hardware = run.recipe.hardware
    options: dict[str, Any] = {"cache_dir": run.directory / kind}
    if kind == "mapper":
        options |= {
            "preset": hardware.preset,
            "hardware": hardware.hardware,
            "mapping": hardware.mapping,
        }
    elif kind == "device":
        options |= {"device": str(run.device)}
    else:
        raise InvalidValueError(
            f"paths can be rescored by mapper or device, but got {kind!r}; "
            f"{nearest(kind, ['mapper', 'device'])}"
        )
    model = create_cost_model(kind, **{k: v for k, v in options.items() if v is not None})
    costs = CostTable(run.space, model)([point.path for point in points])
    rows = tuple(
        {
            "id": point.id,
            "energy_mj": point.energy_mj,
            "latency_ms": point.latency_ms,
            "energy_mj_rescored": _known(costs.energy_mj[i]),
            "latency_ms_rescored": _known(costs.latency_ms[i]),
        }
        for i, point in enumerate(points)
    )
    return Rescored(model.hardware, rows)


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def load_separate(run: Run, path: ExecutionPath) -> nn.Module:
    """The plain model that separate retraining left of a path, on the run's device."""
    weights = run.retrained_dir("separate", path.id) / "weights.safetensors"
    module = run.space.build().extract(path)
    load_into(module, weights)
    return module.to(run.device).eval()


def _train_shared(
    run: Run,
    job: RetrainJob,
    settings: RetrainSettings,
    folder: Path,
    on_epoch: EpochListener | None,
) -> list[PathResult]:
    from pipeline.retrain import SharedTraining, fit

    model = run.load_model()
    paths = list(dict.fromkeys([*job.paths, run.space.full]))
    task = create_task(run.recipe.task, training=settings)
    costs = run.table(paths)[run.recipe.search.cost].tolist()
    module = SharedTraining(model, paths, settings, task, costs=costs)
    report = _report(run, model, paths, on_epoch)
    loader = run.data.loader("train", shuffle_seed=settings.seed)
    fit(module, loader, checkpoint_dir=folder / "training", report=report)
    model.to(run.device)
    write_state(folder / "weights.safetensors", model.state_dict())
    validation, test = (run.evaluator(model, split)(paths) for split in SCORED)
    return [
        PathResult(path, _finite(v), _finite(t))
        for path, v, t in zip(paths, validation, test, strict=True)
    ]


def _train_separate(
    run: Run,
    job: RetrainJob,
    settings: RetrainSettings,
    folder: Path,
    on_epoch: EpochListener | None,
) -> list[PathResult]:
    from pipeline.retrain import EpochReport, SeparateTraining, fit

    (path,) = job.paths
    teacher = run.load_model()
    student = teacher.extract(path)
    task = create_task(run.recipe.task, training=settings)
    module = SeparateTraining(student, teacher, settings, task)

    def validate() -> Mapping[str, float]:
        return {path.id: _score_plain(run, student, "validation").value}

    report = EpochReport(on_epoch, validate=validate) if on_epoch else None
    loader = run.data.loader("train", shuffle_seed=settings.seed)
    fit(module, loader, checkpoint_dir=folder / "training", report=report)
    student.to(run.device)
    write_state(folder / "weights.safetensors", student.state_dict())
    validation, test = (_score_plain(run, student, split) for split in SCORED)
    return [PathResult(path, validation, test)]


def _report(
    run: Run, model: ElasticModel, paths: Sequence[ExecutionPath], on_epoch: EpochListener | None
) -> "EpochReport | None":
    if on_epoch is None:
        return None
    from pipeline.retrain import EpochReport

    def validate() -> Mapping[str, float]:
        scores = run.evaluator(model, "validation")(paths)
        found = zip(paths, scores, strict=True)
        return {path.id: score.value for path, score in found if isinstance(score, Score)}

    return EpochReport(on_epoch, validate=validate)


def _score_elastic(
    run: Run, model: ElasticModel, weights: str, points: Sequence[Point]
) -> list[dict[str, Any]]:
    paths = [point.path for point in points]
    validation, test = (run.evaluator(model, split)(paths) for split in SCORED)
    return [
        {"id": point.id, "weights": weights, "validation": _finite(v), "test": _finite(t)}
        for point, v, t in zip(points, validation, test, strict=True)
    ]


def _score_plain(run: Run, module: nn.Module, split: "SplitName") -> Score:
    return score_model(module, run.data.loader(split), run.task, device=run.device)


def _finite(score: Score | Exception) -> Score:
    if isinstance(score, Score):
        return score
    raise score


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None


def _result(entry: Mapping[str, Any]) -> PathResult:
    path = ExecutionPath(entry["path"])
    return PathResult(path, Score(**entry["validation"]), Score(**entry["test"]))
