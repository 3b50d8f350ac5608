"""Which trials come next: a function of the seed and of the trials so far."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from paretopath.paths import IndexMatrix
from paretopath.search.candidates import Problem, starting_paths
from paretopath.search.proposer import History
from paretopath.search.record import Record
from paretopath.search.samplers import create_proposer
from paretopath.search.settings import SearchSettings
from paretopath.search.trials import ToldRows

RUNGS = 6  # of the ladder between the smallest and the full path


class Planner:
    """Proposes paths, the starting ones first.

    Args:
        problem: what is searched.
        settings: how.
    """

    def __init__(self, problem: Problem, settings: SearchSettings) -> None:
        self._problem = problem
        self._seed = settings.seed
        self._size = settings.generation
        self._first = starting_paths(problem, RUNGS, settings.paths)
        self._proposer = create_proposer(settings.sampler, problem)

    def extend(self, record: Record) -> IndexMatrix:
        """The rest of the generation to which the next trial belongs; empty if no path is left.

        Generations start at fixed trial numbers, after all trials before them have finished. One
        that was cut short (by a kill, or by ``trials``) is proposed again from the trials before
        it, which gives the same paths, and goes on where it stopped.
        """
        begin, end = self.generation(len(record))
        return self._propose(record, begin, end - begin)[len(record) - begin :]

    def propose(self, record: Record, count: int) -> IndexMatrix:
        """About ``count`` paths from all that is known now; empty if no path is left.

        Trials that others are still evaluating count at what the model expects of them.
        """
        known = len(record)
        if known < len(self._first):
            return self._first[known:]
        return self._propose(record, known, count)

    def generation(self, number: int) -> tuple[int, int]:
        """The generation that holds a trial number, as a half-open range."""
        begin, end = 0, len(self._first)
        while end <= number:
            size = self._size or growing(end)
            begin, end = end, end + size
        return begin, end

    def _propose(self, record: Record, begin: int, count: int) -> IndexMatrix:
        """The paths that follow trial number ``begin``."""
        if begin == 0:
            return self._first
        pending = np.zeros(begin, dtype=bool)
        pending[[number for number in record.unfinished if number < begin]] = True
        trials = History(
            record.matrix[:begin],
            record.accuracy[:begin],
            record.error[:begin],
            record.cost[:begin],
            pending if pending.any() else None,
            record.partial[:begin],
        )
        history = with_told(trials, record.told, self._problem) if record.told else trials
        rng = np.random.default_rng([self._seed, begin])
        return self._proposer.propose(history, count, rng)


def with_told(trials: History, told: Mapping[int, ToldRows], problem: Problem) -> History:
    """The trials, each followed by the paths that it told of, the first time that any does.

    Args:
        trials: the first ones of a search.
        told: by number of the trial.
        problem: of the search.
    """
    empty = ToldRows(trials.matrix[:0], trials.accuracy[:0], trials.error[:0])
    after = [told.get(number, empty) for number in range(len(trials))]
    begins = np.cumsum([0, *(1 + len(rows.matrix) for rows in after)])
    at_trial = np.zeros(begins[-1], dtype=bool)
    at_trial[begins[:-1]] = True

    def merged(of_trials: Any, of_told: Any) -> Any:
        found = np.empty((len(at_trial), *of_trials.shape[1:]), dtype=of_trials.dtype)
        found[at_trial], found[~at_trial] = of_trials, of_told
        return found

    matrix = np.concatenate([rows.matrix for rows in after])
    nothing = np.zeros(len(matrix), dtype=bool)
    history = History(
        merged(trials.matrix, matrix),
        merged(trials.accuracy, np.concatenate([rows.accuracy for rows in after])),
        merged(trials.error, np.concatenate([rows.error for rows in after])),
        merged(trials.cost, problem.cost_of(matrix)),
        None if trials.pending is None else merged(trials.pending, nothing),
        None if trials.partial is None else merged(trials.partial, nothing),
        ~at_trial,
    )
    _, first = np.unique(problem.keys(history.matrix), return_index=True)
    stays = at_trial.copy()
    stays[first] = True
    return history.where(stays)


def growing(known: int) -> int:
    """How many paths to propose at once when so many are known: about an eighth, later less."""
    return max(8, min(known // 8, max(64, known // 16)))
