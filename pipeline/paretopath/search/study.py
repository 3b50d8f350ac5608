"""A search by one process: generations of paths, proposed from what was measured, then evaluated.

The seed fixes its trials, also when it is killed and resumed.
"""

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import optuna

from paretopath.evaluation.source import AccuracySource, Outcome
from paretopath.paths import SearchSpace
from paretopath.search.candidates import Pricer, Problem
from paretopath.search.loop import run
from paretopath.search.planning import Planner
from paretopath.search.record import Record
from paretopath.search.settings import SearchProgress, SearchSettings
from paretopath.search.storage import exclusive, open_storage


def search(
    space: SearchSpace,
    pricer: Pricer,
    evaluator: AccuracySource,
    settings: SearchSettings,
    *,
    run_dir: str | os.PathLike[str],
    storage: str | None = None,
    on_progress: Callable[[SearchProgress], None] | None = None,
) -> optuna.Study:
    """Searches, or goes on where an interrupted search of the same run directory stopped.

    The full path, the smallest and a ladder between them come first; then generation after
    generation is proposed, evaluated and recorded. Each evaluated path is one trial; paths over a
    budget, and paths seen before, are rejected before any image is run and leave no trial.

    Args:
        space: the paths.
        pricer: their exact costs.
        evaluator: their accuracies. An error that it raises ends the search; it can be resumed.
        settings: how to search.
        run_dir: where the study is kept; made if missing.
        storage: a database to keep the study in, as a URL, in place of the run directory's journal.
        on_progress: called whenever results have been recorded.

    Returns:
        The study: accuracy up, cost down. It has fewer trials than asked for only if the space has
        no more paths.

    Raises:
        InvalidValueError: no path fits the budgets.
        RunDirectoryError: the run directory holds another search, or one that is running.
    """
    Path(run_dir).mkdir(parents=True, exist_ok=True)
    problem = Problem(space, pricer, settings.cost, settings.budgets)
    with exclusive(run_dir):
        planner = Planner(problem, settings)  # first: it refuses budgets that nothing fits
        record = Record(problem, open_storage(run_dir, storage), settings.identity)
        run(_Alone(record, planner, settings.trials, on_progress), evaluator)
    return record.study


class _Alone:
    """The crew of one: every trial is its own, and a generation is proposed when the last is done.

    Args:
        record: of the search; what a dead process left unfinished is evaluated first.
        planner: of its generations.
        trials: how many are wanted.
        on_progress: called whenever results have been recorded.
    """

    def __init__(
        self,
        record: Record,
        planner: Planner,
        trials: int,
        on_progress: Callable[[SearchProgress], None] | None,
    ) -> None:
        self.record = record
        self._planner = planner
        self._trials = trials
        self._on_progress = on_progress
        self._exhausted = False  # no path is left

    def look(self) -> bool:
        """Whether a trial is unfinished, or missing."""
        missing = self.record.missing(self._trials) > 0
        return bool(self.record.unfinished) or (missing and not self._exhausted)

    def propose(self) -> bool:
        """Adds the rest of a generation, once all trials before it have finished."""
        if self.record.unfinished:
            return False
        rows = self._planner.extend(self.record)
        self._exhausted = not len(rows)
        if len(rows):
            self.record.append(rows[: self.record.missing(self._trials)])
        return bool(len(rows))

    def take(self) -> list[int]:
        """All trials that are unfinished."""
        numbers = list(self.record.unfinished)
        if numbers:
            self.record.claim(numbers)
        return numbers

    def keep(self, outcomes: Mapping[int, Outcome]) -> None:
        """Records outcomes, and tells of them."""
        self.record.finish(outcomes)
        self.record.refresh()
        if self._on_progress:
            self._on_progress(SearchProgress.of(self.record, self._trials, [*outcomes]))

    def rest(self) -> None:
        """Nobody else is to be waited for."""
