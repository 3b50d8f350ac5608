"""The start of a search: all that its recipe names is there and fits, or nothing has happened."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

import torch

from paretopath.jobs.base import initial_model
from paretopath.launch import require_slurm
from paretopath.progress import PhaseListener, phase, unheard
from paretopath.recipe import Recipe
from paretopath.run import Parts, Run, assemble, move_aside
from paretopath.search.candidates import Problem
from paretopath.search.databases import is_absent_file, open_database
from paretopath.search.storage import exclusive, has_study


@contextmanager
def started(
    directory: Path,
    recipe: Recipe,
    *,
    device: torch.device | str | None = None,
    fresh: bool = False,
    on_moved: Callable[[Path], None] | None = None,
    on_phase: PhaseListener = unheard,
) -> Iterator[tuple[Run, Parts]]:
    """A run whose search may begin, held against other searches until the block ends.

    Whatever is wrong is found before anything long begins and before anything is written: a start
    that is refused leaves all as it was.

    Args:
        directory: the run's; one that holds a run of this recipe goes on.
        recipe: resolved.
        device: see :class:`Run`.
        fresh: moves what the directory holds aside.
        on_moved: told where that is now.
        on_phase: see :func:`resolve`.

    Raises:
        ParetopathError: see :func:`resolve`.
        RunDirectoryError: the directory holds a run of another recipe, or one that is searched now.
    """
    run = Run(directory, recipe, device=device)
    if fresh:
        with ExitStack() as stack:
            if directory.is_dir():
                stack.enter_context(exclusive(directory))
            parts = resolve(run, fresh=True, on_phase=on_phase)
            moved = move_aside(directory)
        if moved is not None and on_moved is not None:
            on_moved(moved)
    else:
        run.require_same()
        parts = resolve(run, on_phase=on_phase)
    directory.mkdir(parents=True, exist_ok=True)
    with exclusive(directory):
        yield Run.start(directory, recipe, device=run.device), parts


def resolve(
    run: Run, *, fresh: bool = False, makes_files: bool = True, on_phase: PhaseListener = unheard
) -> Parts:
    """Builds what a run's recipe describes, and tries all else that its search will need.

    Args:
        run: its directory need not exist, and is not written.
        fresh: takes nothing of what the directory holds for granted.
        makes_files: whether an SQLite database that does not exist is made; others are reached.
        on_phase: hears of data, weights and pricing, and goes on hearing while the parts are used.

    Raises:
        ParetopathError: something that the recipe names does not exist or does not fit the rest: a
            preset, a file, a data set, a transform, weights, a space's option, SLURM, a database,
            an extra; or no path fits the budgets.
    """
    recipe = run.recipe
    if recipe.launch.where == "slurm":
        require_slurm()
    parts = assemble(run, on_phase=on_phase)
    if parts.budgets:
        _ = Problem(parts.searched, parts.pricer, recipe.search.cost, parts.budgets).cheapest
    is_new = fresh or not run.weights_file.is_file()
    if is_new and parts.predictor is None and recipe.weights is not None:
        with phase(on_phase, "loading weights"):
            parts = replace(parts, base=initial_model(parts.space, recipe))
    storage = recipe.search.storage
    if storage is not None and (fresh or not has_study(run.directory)):
        if makes_files or not is_absent_file(storage):
            open_database(storage)  # last: SQLite makes its file
    return parts
