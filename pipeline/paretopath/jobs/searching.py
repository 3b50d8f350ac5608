"""The search of a run, its front and its report."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from paretopath.elastic import ElasticModel
from paretopath.elastic.own import OwnFolder
from paretopath.errors import RunDirectoryError
from paretopath.evaluation.fitted import scored
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front, Point, TrialRecord
from paretopath.jobs.browsing import show_search, unit_costs
from paretopath.jobs.doubts import Doubts
from paretopath.jobs.exits import exits_run
from paretopath.jobs.leaving import left_early, without_policies
from paretopath.jobs.pictures import load_pictures, save_pictures
from paretopath.jobs.scoring import cost_of
from paretopath.jobs.sharing import share_search, wants_workers
from paretopath.jobs.worker import open_evaluator, search_settings
from paretopath.paths import ExecutionPath
from paretopath.progress import PhaseListener, phase, unheard
from paretopath.recipe import Recipe
from paretopath.run import (
    Parts,
    Run,
    Scoring,
    accuracy_source,
    assemble,
    build_searched,
    build_space,
    build_table,
    keep_table,
    load_model,
    trial_record,
)
from paretopath.run.environment import environment
from paretopath.search import SearchProgress, search
from paretopath.search.storage import has_study
from paretopath.search.trials import evaluated, load_study
from paretopath.showing.report import ReportRun, write_report
from paretopath.showing.tracking import NullTracking, Objective, Tracking
from paretopath.tasks.task import ClasswiseScorer, Score

_log = logging.getLogger(__name__)


def search_run(
    run: Run,
    parts: Parts | None = None,
    *,
    where: str | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
    on_phase: PhaseListener = unheard,
    tracking: Tracking | None = None,
) -> Front:
    """Searches a run whose weights are there, and saves its front with test accuracies.

    Args:
        run: gets its study and its front; what retraining added to an older front is kept.
        parts: what its recipe describes; built if None.
        where: ``local`` or ``slurm``, in place of what the recipe says about jobs.
        on_progress: hears of results as they are recorded.
        on_phase: hears of what comes before and after the search.
        tracking: shows the search to others.

    Raises:
        RunDirectoryError: every trial failed.
        InvalidValueError: no path fits the budgets.
    """
    parts = parts or assemble(run, on_phase=on_phase)
    recipe = run.recipe.search
    full_cost = float(parts.table([parts.space.full])[recipe.cost][0])
    tracker = (tracking or NullTracking()).start(
        "search", "search", config=run.recipe.dump(), objective=Objective(recipe.cost, full_cost)
    )
    if has_study(run.directory):
        tracker.trials(run.trials(parts.searched), known=True)
    if recipe.trials > parts.searched.size:
        _log.warning(
            "search.trials is %d, but the space has %d paths: the search ends when all are tried",
            recipe.trials,
            parts.searched.size,
        )
    doubts = Doubts(parts)

    def listen(progress: SearchProgress) -> None:
        doubts.hear(progress.latest)
        tracker.trials([trial_record(trial) for trial in progress.latest])
        if on_progress:
            on_progress(progress)

    place = where or run.recipe.launch.where
    if wants_workers(run, place):
        share_search(run, parts, where=place, on_progress=listen, on_phase=on_phase)
        model = None if parts.predictor else load_model(parts.space, run.weights_file, run)
    else:
        evaluator, model = open_evaluator(run, parts)
        search(
            parts.searched,
            parts.pricer,
            evaluator,
            search_settings(run, parts, on_phase=on_phase),
            run_dir=run.directory,
            storage=recipe.storage,
            on_progress=listen,
        )
    trials = run.trials(parts.searched)
    left: dict[ExecutionPath, int] = {}
    if parts.leaving is not None:
        found = evaluated(load_study(run.directory), parts.leaving)
        left = left_early(parts.leaving, found, cost_of(parts.pricer, recipe.cost))
    plain = without_policies(run, parts, model, trials, left) if model and left else trials
    front = make_front(run.recipe, parts, plain)
    if left:
        front = front.with_early_only(
            Point.of_trial(t) for t in plain if t.path in left and t.state == "complete"
        )
    if model is not None:
        with phase(on_phase, "scoring the front on test"):
            front, by_class = with_test(front, parts.images, model, run.own())
        save_pictures(run, parts.images, model, list(front.everyone.values()), by_class)
    if run.front_file.is_file():
        front = with_retrained(front, run.front())
    front.save(run.front_file)
    if left:
        front = exits_run(run, on_phase=on_phase)
    keep_table(parts.table, run.costs_file)
    show_search(run, parts.table, tracker, front, trials)
    tracker.finish()
    return front


def with_retrained(front: Front, older: Front) -> Front:
    """The front with what an older front of the same run has beside accuracies: what retraining
    made of its paths, and the policies of those that are still there.
    """
    known = older.everyone
    updated = front.updated(
        replace(point, retrained=known[identity].retrained)
        for identity, point in front.everyone.items()
        if identity in known
    )
    return updated.with_policies(p for p in older.policies if p.path.id in front.everyone)


def save_report(run: Run, file: Path | None = None) -> None:
    """Writes the report of a run that has a front: to the run directory, or to another file."""
    front = run.front()
    space = build_space(run.recipe)
    versions = {k: str(v) for k, v in environment(run.device).items() if v is not None}
    measured = run.sensitivity_file
    shown = ReportRun(
        run.directory.name,
        front,
        run.trials(build_searched(run.recipe, space)),
        unit_costs(build_table(run, space), front),
        versions,
        Sensitivity.load(measured) if measured.is_file() else None,
        load_pictures(run),
    )
    write_report(file or run.report_file, [shown], title=run.recipe.name)


def make_front(recipe: Recipe, parts: Parts, trials: Sequence[TrialRecord]) -> Front:
    """The front of finished trials: those within the budgets, with the full path as the baseline.

    Raises:
        RunDirectoryError: no trial gave an accuracy within the budgets, or the full path's failed.
    """
    points = {t.path: Point.of_trial(t) for t in trials if t.state == "complete"}
    fitting = [
        point
        for point in points.values()
        if all(getattr(point, name) <= bound for name, bound in parts.budgets.items())
    ]
    if not fitting or parts.space.full not in points:
        reasons = {t.failure for t in trials if t.failure}
        raise RunDirectoryError(
            f"no front: {len(fitting)} of {len(trials)} trials have an accuracy within the "
            f"budgets, and the full path {'has one' if parts.space.full in points else 'has none'}"
            + (f"; the failures: {'; '.join(sorted(reasons)[:3])}" if reasons else "")
        )
    return Front.of(
        fitting,
        full=points[parts.space.full],
        recipe=recipe.dump(),
        hardware=parts.table.cost_model.hardware,
        metric=parts.task.metric,
        cost=recipe.search.cost,
        accuracy_source=accuracy_source(recipe),
    )


def with_test(
    front: Front, scoring: Scoring, model: ElasticModel, kept: OwnFolder
) -> tuple[Front, dict[str, Mapping[int, float | None]]]:
    """The front with test accuracies of its points and of the full path, before retraining; and
    those of each class by path id, where the task tells them.
    """
    points = list(front.everyone.values())
    evaluator = scoring.evaluator(model, "test", kept=kept)
    updated: list[Point] = []
    by_class: dict[str, Mapping[int, float | None]] = {}
    for point, (score, scorer) in zip(
        points, scored(evaluator, [point.path for point in points]), strict=True
    ):
        if isinstance(score, Score):
            updated.append(replace(point, test_accuracy=score.value, test_error=score.error))
            if isinstance(scorer, ClasswiseScorer):
                by_class[point.id] = scorer.by_class()
    return front.updated(updated), by_class
