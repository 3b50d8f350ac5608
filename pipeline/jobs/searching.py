"""The search of a run, its front and its report."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from pipeline.elastic import ElasticModel
from pipeline.errors import RunDirectoryError
from pipeline.front import Front, Point, TrialRecord
from pipeline.report import ReportRun, UnitCost, write_report
from pipeline.run import Run, environment
from pipeline.search import SearchProgress, SearchSettings, search
from pipeline.tasks.task import Score


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
    predicted = run.recipe.accuracy.source == "predictor"
    model = None if predicted else run.load_model()
    evaluator = run.predictor() if model is None else run.evaluator(model, "validation")
    search(
        run.space, run.table, evaluator, settings, run_dir=run.directory, on_progress=on_progress
    )
    front = make_front(run, run.trials())
    if model is not None:
        front = with_test(run, model, front)
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
            f"no front: {len(fitting)} of {len(trials)} trials have an accuracy within the "
            f"budgets, and the full path {'has one' if run.space.full in points else 'has none'}"
            + (f"; the failures: {'; '.join(sorted(reasons)[:3])}" if reasons else "")
        )
    return Front.of(
        fitting,
        full=points[run.space.full],
        recipe=run.recipe.dump(),
        hardware=run.table.cost_model.hardware,
        metric=run.task.metric,
        cost=run.recipe.search.cost,
        accuracy_source=run.accuracy_source,
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
