"""A search that many workers share: each takes trials, and proposes when the queue runs short.

Nobody is in charge. A worker claims some of the trials that wait (:mod:`paretopath.search.claims`),
evaluates and records them, and goes on. When fewer trials wait than there are workers, one of them
claims the right to propose, and proposes from all that has finished; trials that others are still
evaluating count at what the model expects of them. So no worker waits for the slowest of a
generation. Workers may come, leave and die at any time.
"""

import math
import time
from collections.abc import Callable, Mapping

import numpy as np

from paretopath.evaluation.source import AccuracySource, Outcome
from paretopath.paths import SearchSpace
from paretopath.search.candidates import Pricer, Problem
from paretopath.search.claims import PROPOSING, Claims, WorkerInfo, bury, is_shared
from paretopath.search.loop import Tolerant, run
from paretopath.search.planning import Planner, growing
from paretopath.search.record import Record
from paretopath.search.settings import SearchProgress, SearchSettings
from paretopath.search.storage import StudyStorage

__all__ = ["WorkerInfo", "bury", "is_shared", "open_shared", "watch", "work"]

LEASE_SECONDS = 60.0
_PAUSES = (0.02, 1.0)  # seconds between looks at the study while there is nothing to do
_LOOKS = 10.0  # a second, of all workers that have nothing to do together
_MOST_AHEAD = 64  # paths that are proposed together because proposing is slow


def open_shared(problem: Problem, settings: SearchSettings, storage: StudyStorage) -> Record:
    """The record of a shared search, made if it is new.

    Raises:
        RunDirectoryError: the study was started with other settings.
    """
    record = Record(problem, storage, settings.identity)
    Claims(storage, lease_seconds=LEASE_SECONDS)
    return record


def work(
    space: SearchSpace,
    pricer: Pricer,
    evaluator: AccuracySource,
    settings: SearchSettings,
    storage: StudyStorage,
    worker: WorkerInfo,
    *,
    lease_seconds: float = LEASE_SECONDS,
    should_stop: Callable[[], bool] = lambda: False,
) -> int:
    """Takes part in a search until it has as many finished trials as its settings ask for.

    Args:
        space: the paths.
        pricer: their exact costs.
        evaluator: their accuracies. One that raises has its path recorded as failed; an error of
            this package is not a path's and ends the worker.
        settings: the same for every worker of a search.
        storage: of the study, for this thread.
        worker: who works; its name must be new to the study.
        lease_seconds: a worker that is silent for so long is dead: others take over its trials.
        should_stop: asked between evaluations; True makes the worker leave.

    Returns:
        How many trials this worker evaluated.

    Raises:
        InvalidValueError: no path fits the budgets.
        RunDirectoryError: the study was started with other settings.
        Exception: what the evaluator raised for the last of several paths in a row, the last of
            them one that had worked before.
    """
    problem = Problem(space, pricer, settings.cost, settings.budgets)
    planner = Planner(problem, settings)
    record = Record(problem, storage, settings.identity)
    claims = Claims(storage, lease_seconds=lease_seconds)
    with claims.join(worker):
        crew = _Shared(record, claims, planner, settings)
        run(crew, Tolerant(evaluator, space.smallest, should_stop), should_stop=should_stop)
    return crew.evaluated


class _Shared:
    """The crew of many: a trial is for the worker that has claimed it.

    Args:
        record: of the search.
        claims: of its workers, this one has joined.
        planner: proposes.
        settings: the same for every worker.

    Attributes:
        evaluated: how many trials this worker has recorded.
    """

    def __init__(
        self, record: Record, claims: Claims, planner: Planner, settings: SearchSettings
    ) -> None:
        self.record = record
        self.evaluated = 0
        self._claims = claims
        self._planner = planner
        self._settings = settings
        self._rng = np.random.default_rng(list(claims.me.encode()))  # to spread, not to search
        self._pause = _PAUSES[0]
        self._taken: tuple[float, int] | None = None  # when, and how many, at the last taking
        self._seconds = (0.0, 0)  # of evaluations, and how many they were
        self._proposing_seconds = 0.0  # of the last proposal
        self._read_at = -1  # how many proposals there were when the trials were read
        self._exhausted_at = -1  # the number of trials when nothing more could be proposed

    def look(self) -> bool:
        """Reads what others did. Whether a trial is unfinished, or missing."""
        if self._taken is not None:
            begun, count = self._taken
            self._seconds = self._seconds[0] + time.monotonic() - begun, self._seconds[1] + count
            self._taken, self._pause = None, _PAUSES[0]
        self._read()
        missing = self.record.missing(self._settings.trials)
        exhausted = self._exhausted_at == len(self.record)
        return bool(self._wanted()) or (missing > 0 and not exhausted)

    def propose(self) -> bool:
        """Adds trials if few wait and no other worker is at it."""
        if self.record.missing(self._settings.trials) <= 0:
            return False
        proposed = self._propose(self._wanted())
        if proposed:
            self._pause = _PAUSES[0]
        return proposed

    def take(self) -> list[int]:
        """Claims a share of the trials that wait, of dead workers' first."""
        record, claims = self.record, self._claims
        with record.storage.batch():
            claims.refresh()
            wanted = self._wanted()
            mine = [number for number in wanted if claims.is_mine(number)]
            free = [number for number in wanted if claims.is_free(number)]
            # a small share, so that all end at about the same time (guided self-scheduling:
            # Polychronopoulos and Kuck, 1987)
            count = max(1, len(free) // (2 * claims.living)) - len(mine)
            if free and count > 0:
                # not the very first, which others try to get at this moment
                near = free[: count * claims.living]
                chosen = self._rng.choice(near, size=min(count, len(near)), replace=False)
                before = {n: claims.holder(n) for n in sorted(chosen.tolist())}
                mine += claims.claim(before)
                if any(entry is not None for entry in before.values()):
                    # a dead worker may have recorded them before it died
                    finished = record.refresh()
                    mine = [number for number in mine if number in record.unfinished]
                    claims.finish(finished)
            record.claim(mine)
        if mine:
            self._taken = time.monotonic(), len(mine)
        return mine

    def keep(self, outcomes: Mapping[int, Outcome]) -> None:
        """Records outcomes, but for those of trials that were given to another meanwhile."""
        self._claims.refresh()
        kept = {n: outcome for n, outcome in outcomes.items() if self._claims.is_mine(n)}
        self.record.finish(kept)
        self._claims.finish([*kept])
        self.evaluated += len(kept)

    def rest(self) -> None:
        """Waits, longer from time to time, while others evaluate."""
        time.sleep(self._pause)
        self._pause = min(2 * self._pause, max(_PAUSES[1], self._claims.living / _LOOKS))

    def _read(self) -> None:
        """Reads what others did: the claims, and the trials themselves only if there are new ones.

        A database reads each unfinished trial whole, which with many workers is most of its work.
        """
        self._claims.refresh()
        self._claims.observe()
        if self._claims.proposals != self._read_at:
            self._read_at = self._claims.proposals
            self.record.refresh()

    def _wanted(self) -> list[int]:
        """The trials that have not finished."""
        first = self.record.first(self._settings.trials)
        return [number for number in first if number not in self._claims.done]

    def _propose(self, wanted: list[int]) -> bool:
        record, claims = self.record, self._claims
        waiting = sum(claims.is_free(number) for number in wanted)
        if waiting >= claims.living or self._exhausted_at == len(record):
            return False
        if not claims.is_free(PROPOSING):
            return False
        known = len(record)
        if not claims.claim({PROPOSING: claims.holder(PROPOSING)}):
            return False
        try:
            record.refresh()
            # another may have proposed just before
            return len(record) == known and self._append()
        finally:
            if claims.is_mine(PROPOSING):
                claims.release(PROPOSING)

    def _append(self) -> bool:
        """Proposes and adds trials; whether there were any."""
        record, begin = self.record, len(self.record)
        start = time.monotonic()
        rows = self._planner.propose(record, self._generation(begin))
        self._proposing_seconds = time.monotonic() - start
        self._claims.refresh()
        if not self._claims.is_mine(PROPOSING):
            return False  # it took so long that this worker was taken for dead
        if not len(rows):
            self._exhausted_at = begin
            return False
        record.append(rows[: record.missing(self._settings.trials)])
        return True

    def _generation(self, known: int) -> int:
        """How many paths to propose at once.

        As a search alone does, but where evaluations are so fast that the workers would wait for
        proposals, as many as they evaluate while the next ones are made.
        """
        if self._settings.generation is not None:
            return self._settings.generation
        seconds, count = self._seconds
        ahead = 0
        if count and seconds:
            ahead = math.ceil(self._claims.living * self._proposing_seconds * count / seconds)
        return max(growing(known), self._claims.living, min(ahead, _MOST_AHEAD))


def watch(
    record: Record,
    trials: int,
    *,
    on_progress: Callable[[SearchProgress], None] | None,
    is_alive: Callable[[], bool],
    seconds: float = 1.0,
) -> None:
    """Follows a shared search until it has so many finished trials, or nobody works on it.

    Args:
        record: of the search; read only.
        trials: how many are wanted.
        on_progress: hears of trials that finished since the last look.
        is_alive: whether somebody works on it; asked before each look.
        seconds: between looks.
    """
    while True:
        goes_on = is_alive()
        latest = record.refresh()
        if latest and on_progress:
            on_progress(SearchProgress.of(record, trials, sorted(latest)))
        complete = record.missing(trials) <= 0 and not record.first(trials)
        if complete or not goes_on:
            return
        time.sleep(seconds)
