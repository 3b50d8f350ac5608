"""A search that many workers share: each takes trials, and proposes when the queue runs short.

Nobody is in charge. A worker claims some of the trials that wait (:mod:`paretopath.search.claims`),
evaluates and records them, and goes on; who finds fewer waiting than there are workers claims the
right to propose, and proposes from all that has finished, those that are still being evaluated
counted at what the model expects of them. So no worker waits for the slowest of a generation.
Workers may come, leave and die at any time.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from paretopath.errors import InvalidValueError, ParetopathError
from paretopath.paths import ExecutionPath, IndexMatrix, SearchSpace
from paretopath.search.candidates import Pricer, Problem, starting_paths
from paretopath.search.claims import PROPOSING, Claims, WorkerInfo, bury, is_shared
from paretopath.search.proposer import History
from paretopath.search.record import Record
from paretopath.search.samplers import create_proposer
from paretopath.search.storage import StudyStorage
from paretopath.search.study import (
    RUNGS,
    SAVE_SECONDS,
    Evaluator,
    SearchProgress,
    SearchSettings,
    growing,
    identity,
)
from paretopath.tasks.task import Score, Stopped

__all__ = ["WorkerInfo", "bury", "is_shared", "open_shared", "watch", "work"]

LEASE_SECONDS = 60.0
_PAUSES = (0.02, 1.0)  # seconds between looks at the study while there is nothing to do
_LOOKS = 10.0  # a second, of all workers that have nothing to do together
_PATIENCE = 3  # evaluations that raise in a row, before a worker asks whether it is broken
_MOST_AHEAD = 64  # paths that are proposed together because proposing is slow


class SharedPlanner:
    """Proposes from every trial that has finished when it is asked.

    Args:
        problem: what is searched.
        settings: how.
    """

    def __init__(self, problem: Problem, settings: SearchSettings) -> None:
        self._seed = settings.seed
        self._first = starting_paths(problem, RUNGS, settings.paths)
        self._proposer = create_proposer(settings.sampler, problem)

    def propose(self, record: Record, count: int) -> IndexMatrix:
        """New canonical rows, about ``count``; none if there are no more paths."""
        begin = len(record)
        if begin < len(self._first):
            return self._first[begin:]
        pending = np.zeros(begin, dtype=bool)
        pending[record.unfinished] = True
        history = History(
            record.matrix, record.accuracy, record.error, record.cost, pending, record.partial
        )
        return self._proposer.propose(history, count, np.random.default_rng([self._seed, begin]))


def open_shared(problem: Problem, settings: SearchSettings, storage: StudyStorage) -> Record:
    """The record of a shared search, made if it is new.

    Raises:
        RunDirectoryError: the study was started with other settings.
    """
    record = Record(problem, storage, identity(settings))
    Claims(storage, lease_seconds=LEASE_SECONDS)
    return record


def work(
    space: SearchSpace,
    pricer: Pricer,
    evaluator: Evaluator,
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
    planner = SharedPlanner(problem, settings)
    record = Record(problem, storage, identity(settings))
    claims = Claims(storage, lease_seconds=lease_seconds)
    with claims.join(worker):
        return _Worker(record, claims, planner, evaluator, settings, should_stop).run()


class _Worker:
    def __init__(
        self,
        record: Record,
        claims: Claims,
        planner: SharedPlanner,
        evaluator: Evaluator,
        settings: SearchSettings,
        should_stop: Callable[[], bool],
    ) -> None:
        self._record = record
        self._claims = claims
        self._planner = planner
        self._evaluator = evaluator
        self._settings = settings
        self._should_stop = should_stop
        self._rng = np.random.default_rng(list(claims.me.encode()))  # to spread, not to search
        self._evaluated = 0
        self._raised = 0  # paths in a row
        self._sound = record.problem.space.smallest  # a path that does not raise, or ought not to
        self._seconds = (0.0, 0)  # of evaluations, and how many they were
        self._proposing_seconds = 0.0  # of the last proposal
        self._read_at = -1  # how many proposals there were when the trials were read
        self._exhausted_at = -1  # the number of trials when nothing more could be proposed

    def run(self) -> int:
        """See :func:`work`."""
        pause = _PAUSES[0]
        while not self._should_stop():
            self._look()
            wanted = self._wanted()
            missing = self._record.missing(self._settings.trials)
            if not wanted and (missing <= 0 or self._exhausted_at == len(self._record)):
                break
            proposed = missing > 0 and self._propose(wanted)
            taken = self._take()
            if taken:
                self._evaluate(taken)
            if proposed or taken:
                pause = _PAUSES[0]
            else:
                time.sleep(pause)
                pause = min(2 * pause, max(_PAUSES[1], self._claims.living / _LOOKS))
        return self._evaluated

    def _look(self) -> None:
        """Reads what others did: the claims, and the trials themselves only if there are new ones.

        A database reads each unfinished trial whole, which with many workers is most of its work.
        """
        self._claims.refresh()
        self._claims.observe()
        if self._claims.proposals != self._read_at:
            self._read_at = self._claims.proposals
            self._record.refresh()

    def _wanted(self) -> list[int]:
        """The trials that have not finished."""
        first = self._record.first(self._settings.trials)
        return [number for number in first if number not in self._claims.done]

    def _propose(self, wanted: Sequence[int]) -> bool:
        """Adds trials if few wait and no other worker is at it."""
        record, claims = self._record, self._claims
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
        record, begin = self._record, len(self._record)
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

    def _take(self) -> list[int]:
        """Claims a share of the trials that wait, of dead workers' first; their numbers."""
        record, claims = self._record, self._claims
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
        return mine

    def _evaluate(self, numbers: Sequence[int]) -> None:
        """Evaluates trials; results are kept as they come, also when interrupted."""
        outcomes: dict[int, Score | Stopped | Exception] = {}
        start = saved = time.monotonic()
        try:
            for number, outcome in self._outcomes(numbers):
                outcomes[number] = outcome
                if time.monotonic() - saved > SAVE_SECONDS:
                    self._save(outcomes)
                    outcomes, saved = {}, time.monotonic()
        finally:
            seconds, count = self._seconds
            self._seconds = seconds + time.monotonic() - start, count + len(numbers)
            self._save(outcomes)

    def _save(self, outcomes: Mapping[int, Score | Stopped | Exception]) -> None:
        """Records outcomes, but for those of trials that were given to another meanwhile."""
        if not outcomes:
            return
        self._claims.refresh()
        kept = {n: outcome for n, outcome in outcomes.items() if self._claims.is_mine(n)}
        self._record.finish(kept)
        self._claims.finish([*kept])
        self._evaluated += len(kept)

    def _outcomes(
        self, numbers: Sequence[int]
    ) -> Iterator[tuple[int, Score | Stopped | Exception]]:
        """What each trial came to, in order; if evaluating them together raises, one by one."""
        paths = self._record.problem.space.decode(self._record.matrix[list(numbers)])
        reached = 0
        try:
            for outcome in self._evaluator(paths):
                yield numbers[reached], outcome
                self._raised, self._sound = 0, paths[reached]
                reached += 1
        except ParetopathError:
            raise
        except Exception as error:
            if len(numbers) == 1:
                yield numbers[0], self._failed(error)
                return
            for number, path in zip(numbers[reached:], paths[reached:], strict=True):
                if self._should_stop():
                    return
                yield number, self._alone(path)
            return
        if reached != len(numbers):
            raise InvalidValueError(
                f"an evaluator must return one outcome a path, but gave {reached} for {len(paths)}"
            )

    def _alone(self, path: ExecutionPath) -> Score | Stopped | Exception:
        try:
            outcome = next(iter(self._evaluator([path])))
        except ParetopathError:
            raise
        except Exception as error:
            return self._failed(error)
        self._raised, self._sound = 0, path
        return outcome

    def _failed(self, error: Exception) -> Exception:
        """The error as an outcome, unless it is no path's fault.

        After several in a row, a path that worked before tells which: it works again, or raises.
        """
        self._raised += 1
        if self._raised >= _PATIENCE:
            next(iter(self._evaluator([self._sound])))
            self._raised = 0
        return error


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
            on_progress(
                SearchProgress(
                    finished=record.finished,
                    trials=trials,
                    failed=record.failed,
                    latest=record.read(sorted(latest)),
                    best=record.best(),
                )
            )
        complete = record.missing(trials) <= 0 and not record.first(trials)
        if complete or not goes_on:
            return
        time.sleep(seconds)
