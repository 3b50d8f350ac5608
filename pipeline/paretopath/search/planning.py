"""Which trials come next: a function of the seed and of the trials so far."""

import numpy as np

from paretopath.paths import IndexMatrix
from paretopath.search.candidates import Problem, starting_paths
from paretopath.search.proposer import History
from paretopath.search.record import Record
from paretopath.search.samplers import create_proposer
from paretopath.search.settings import SearchSettings

RUNGS = 6  # of the ladder between the smallest and the full path


class Planner:
    """Proposes paths, the starting ones first.

    Args:
        problem: what is searched.
        settings: how.
    """

    def __init__(self, problem: Problem, settings: SearchSettings) -> None:
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
        history = History(
            record.matrix[:begin],
            record.accuracy[:begin],
            record.error[:begin],
            record.cost[:begin],
            pending if pending.any() else None,
            record.partial[:begin],
        )
        rng = np.random.default_rng([self._seed, begin])
        return self._proposer.propose(history, count, rng)


def growing(known: int) -> int:
    """How many paths to propose at once when so many are known: about an eighth, later less."""
    return max(8, min(known // 8, max(64, known // 16)))
