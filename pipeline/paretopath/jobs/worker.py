"""A worker of a run's search: a process of its own, on this machine or another."""

import os
import secrets
import socket
from collections.abc import Callable

from paretopath.elastic import ElasticModel
from paretopath.errors import RunDirectoryError
from paretopath.evaluation.source import AccuracySource
from paretopath.jobs.first_paths import first_paths
from paretopath.jobs.scoring import search_evaluator
from paretopath.progress import PhaseListener, unheard
from paretopath.run import Parts, Run, assemble, load_model
from paretopath.search import SearchSettings
from paretopath.search.storage import open_storage
from paretopath.search.workers import WorkerInfo, is_shared, work


def search_settings(run: Run, parts: Parts, *, on_phase: PhaseListener = unheard) -> SearchSettings:
    """How a run is searched."""
    recipe = run.recipe.search
    return SearchSettings(
        trials=min(recipe.trials, parts.searched.size),
        seed=recipe.seed,
        sampler=recipe.sampler,
        generation=recipe.generation,
        cost=recipe.cost,
        budgets=dict(parts.budgets),
        paths=[parts.searched.canonical(p) for p in first_paths(run, parts, on_phase=on_phase)],
    )


def open_evaluator(run: Run, parts: Parts) -> tuple[AccuracySource, ElasticModel | None]:
    """What scores the paths of a run's search, and its model if that is not a predictor."""
    if parts.predictor is not None:
        return parts.predictor, None
    model = load_model(parts.space, run.weights_file, run)
    scores = search_evaluator(
        parts.images,
        model,
        run.recipe,
        pricer=parts.pricer,
        races=run.races_dir,
        leaving=parts.leaving,
    )
    return scores, model


def work_on(
    run: Run, *, name: str | None = None, should_stop: Callable[[], bool] = lambda: False
) -> int:
    """Takes part in the search of a run directory, also from another machine that sees it.

    Args:
        run: whose search was started with several workers. A database that its study is in must be
            reachable under the same URL.
        name: of this worker, new to the study; made up if None.
        should_stop: asked between evaluations; True makes the worker leave.

    Returns:
        How many trials this worker evaluated.

    Raises:
        RunDirectoryError: no search of several workers was started there.
    """
    storage = open_storage(run.directory)
    if not is_shared(storage):
        raise RunDirectoryError(
            f"workers join a search that several share, but {run.directory} has none: start it "
            f"with `paretopath search RECIPE --workers 2`"
        )
    worker = WorkerInfo.here(name or new_name())
    parts = assemble(run)
    evaluator, _ = open_evaluator(run, parts)
    return work(
        parts.searched,
        parts.pricer,
        evaluator,
        search_settings(run, parts),
        storage,
        worker,
        lease_seconds=run.recipe.search.lease_seconds,
        should_stop=should_stop,
    )


def new_name() -> str:
    """A name for a worker that no other has, with its machine and process in it."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
