"""Retraining: a job from its beginning, or from where it was stopped, to results on the front."""

import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, replace

from paretopath.costs import COST_NAMES
from paretopath.files import sealed, write_atomically
from paretopath.front import Front
from paretopath.jobs.retraining.fitting import solve_closed_form, train_separate, train_shared
from paretopath.jobs.retraining.plan import WHOLE, Part, PathResult, RetrainJob, finished, prepare
from paretopath.jobs.retraining.progress import Progress
from paretopath.progress import PhaseListener, unheard
from paretopath.run import Run, build_scoring, build_space
from paretopath.showing.tracking import Tracking, plain_decisions
from paretopath.training.epoch import Epoch, EpochListener

_log = logging.getLogger(__name__)


def retrain(
    run: Run,
    job: RetrainJob,
    *,
    on_epoch: EpochListener | None = None,
    on_phase: PhaseListener = unheard,
    part: Part = WHOLE,
) -> list[PathResult]:
    """Runs a job, or returns what it left if it was finished with the same settings before.

    Args:
        run: gets the weights and ``result.json``.
        job: of :func:`plan_retraining`.
        on_epoch: hears how training goes.
        on_phase: hears of opening and reading images.
        part: this process's, where several train together; only the first writes anything.

    Returns:
        One result for each path, in the first process. Mode ``shared`` always has the full path
        among them.

    Raises:
        Interrupted: the job was told to stop; called again, it goes on.
    """
    settings = run.recipe.retrain
    known = finished(job, settings)
    if known is not None:
        return known
    scoring = build_scoring(
        run, build_space(run.recipe), transforms=settings.transforms, on_phase=on_phase
    )
    folder = job.folder
    progress = Progress(0 if job.mode == "closed_form" else settings.epochs)
    if part.is_first:
        prepare(job, settings, scoring.space.full)
        progress = (Progress.load(folder) or progress).begun()
        progress.save(folder)

    def listen(epoch: Epoch) -> None:
        nonlocal progress
        progress = progress.after(epoch)
        progress.save(folder)
        if on_epoch:
            on_epoch(epoch)

    try:
        if job.mode == "closed_form":
            results = solve_closed_form(run, scoring, job)
        else:
            train = train_shared if job.mode == "shared" else train_separate
            results = train(run, scoring, job, listen, part)
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
    content = {"order": job.order(settings), "results": entries}
    progress.ended("done").save(folder)
    write_atomically(folder / "result.json", json.dumps(sealed(content)))
    shutil.rmtree(folder / "training", ignore_errors=True)
    return results


def retrain_tracked(
    run: Run,
    job: RetrainJob,
    tracking: Tracking,
    *,
    on_epoch: EpochListener | None = None,
    on_phase: PhaseListener = unheard,
    part: Part = WHOLE,
) -> list[PathResult]:
    """Runs a job with one tracked run for each path that it trains; see :func:`retrain`."""
    front = run.front()
    points = {point.path: point for point in front.everyone.values()}
    if part.is_first and finished(job, run.recipe.retrain) is None:
        prepare(job, run.recipe.retrain, front.full.path)
    recipe = run.recipe.dump()
    trackers = {
        path.id: tracking.start(
            "retrain",
            name,
            config={"mode": job.mode, "path_id": path.id, "decisions": plain_decisions(path)}
            | recipe,
        )
        for name, path in job.tracked(front.full.path).items()
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

    before_this = Progress.load(job.folder) if part.is_first else None
    for epoch in before_this.epochs if before_this else ():
        track(epoch)  # what an attempt that was killed may not have handed over; known ones pass
    results = retrain(run, job, on_epoch=listen, on_phase=on_phase, part=part)
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
            }
            | {name: before.cost(name) for name in COST_NAMES}
        )
        tracker.finish()
    return results


def collect(run: Run, mode: str, results: Sequence[PathResult]) -> Front:
    """Puts results of retraining into the front and saves it.

    A retraining of several paths replaces the one before, so accuracies of paths that are no longer
    in it go; and so do policies, which were found with the weights of before.
    """
    by_id = {result.path.id: result.retrained() for result in results}
    front = run.front()
    changed = []
    for point in front.everyone.values():
        retrained = dict(point.retrained)
        if mode != "separate":
            retrained.pop(mode, None)
        if point.id in by_id:
            retrained[mode] = by_id[point.id]
        changed.append(replace(point, retrained=retrained))
    policies = front.policies
    if mode == "shared" and changed != list(front.everyone.values()):
        policies = ()  # they go with the weights that they were found with
        if front.policies:
            _log.warning(
                "policies for leaving early were found with the weights of before, and are not "
                "kept: paretopath exits %s finds them anew",
                run.directory,
            )
    front = front.updated(changed).with_policies(policies)
    front.save(run.front_file)
    return front


def _why(error: BaseException) -> str:
    """Why an attempt ended, in one line."""
    from paretopath.training.interruption import Interrupted

    if isinstance(error, Interrupted):
        return error.cause
    if isinstance(error, KeyboardInterrupt):
        return "interrupted by hand"
    lines = str(error).strip().splitlines()
    return f"failed: {type(error).__name__}: {lines[-1] if lines else ''}"
