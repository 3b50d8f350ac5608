"""The loop of a search, for one worker alone and for each of many: propose, take, evaluate, record.

What differs between the two is a :class:`Crew`: who proposes when, and who evaluates what. Alone,
everything is this worker's; of many, what it has claimed (:mod:`paretopath.search.workers`).
"""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Protocol

from paretopath.devices import give_back_memory
from paretopath.errors import InvalidValueError, ParetopathError
from paretopath.evaluation.source import AccuracySource, Outcome
from paretopath.paths import ExecutionPath
from paretopath.search.record import Record

SAVE_SECONDS = 1.0  # results that come one by one reach the disk at least this often
_PATIENCE = 3  # evaluations that raise in a row, before a worker asks whether it is broken

Evaluate = Callable[[Sequence[ExecutionPath]], Iterable[Outcome]]
"""What paths come to, in order: an :class:`~paretopath.evaluation.source.AccuracySource`, or one
that takes failures for outcomes.
"""


class Crew(Protocol):
    """The workers of a search, as one of them sees them. Called in this order, again and again."""

    record: Record

    def look(self) -> bool:
        """Reads what others did. Whether there is, or may come, something to do."""
        ...

    def propose(self) -> bool:
        """Adds trials if it is this worker's turn and they are needed. Whether it did."""
        ...

    def take(self) -> list[int]:
        """The numbers of trials that this worker is to evaluate now; they are marked as running."""
        ...

    def keep(self, outcomes: Mapping[int, Outcome]) -> None:
        """Records what trials came to, by number."""
        ...

    def rest(self) -> None:
        """Waits a little for others, since there was nothing to propose or to take."""
        ...


def run(
    crew: Crew,
    evaluator: Evaluate,
    *,
    should_stop: Callable[[], bool] = lambda: False,
) -> None:
    """Works until nothing is left to do.

    Args:
        crew: who does what.
        evaluator: what paths come to, in order. An error that it raises ends the loop, after what
            came before it has been recorded.
        should_stop: asked between evaluations; True makes the worker leave.
    """
    while not should_stop() and crew.look():
        proposed = crew.propose()
        taken = crew.take()
        if taken:
            reached = _evaluate(crew, evaluator, taken)
            if reached < len(taken) and not should_stop():
                raise InvalidValueError(
                    f"an evaluator must return one outcome a path, but gave {reached} for "
                    f"{len(taken)}"
                )
        elif not proposed:
            crew.rest()


def _evaluate(
    crew: Crew,
    evaluator: Evaluate,
    numbers: Sequence[int],
) -> int:
    """Evaluates trials; results are kept as they come, also when interrupted. How many came."""
    record = crew.record
    outcomes: dict[int, Outcome] = {}
    saved = time.monotonic()
    reached = 0
    try:
        for outcome in evaluator(record.problem.space.decode(record.matrix[list(numbers)])):
            if reached == len(numbers):
                raise InvalidValueError(
                    f"an evaluator must return one outcome a path, but gave more than {reached}"
                )
            outcomes[numbers[reached]] = outcome
            reached += 1
            if time.monotonic() - saved > SAVE_SECONDS:
                crew.keep(outcomes)
                give_back_memory()
                outcomes, saved = {}, time.monotonic()
    finally:
        if outcomes:
            crew.keep(outcomes)
    return reached


class Tolerant:
    """An evaluator for one of many workers: a path for which evaluation raises has failed.

    After several in a row, a path that worked before tells whose fault it is: it works again, or
    raises, and ends this worker. Errors of this package are no path's and end it too.

    Args:
        evaluator: to be called.
        sound: a path that ought not to raise, until there is one that did not.
        should_stop: asked between paths that are evaluated one by one.
    """

    def __init__(
        self, evaluator: AccuracySource, sound: ExecutionPath, should_stop: Callable[[], bool]
    ) -> None:
        self._evaluator = evaluator
        self._sound = sound
        self._should_stop = should_stop
        self._raised = 0  # paths in a row

    def __call__(self, paths: Sequence[ExecutionPath]) -> Iterator[Outcome]:
        """What each path came to, in order; if evaluating them together raises, one by one."""
        reached = 0
        try:
            for outcome in self._evaluator(paths):
                yield outcome
                self._raised, self._sound = 0, paths[min(reached, len(paths) - 1)]
                reached += 1
            return
        except ParetopathError:
            raise
        except Exception as error:
            if len(paths) == 1:
                yield self._failed(error)
                return
        for path in paths[reached:]:
            if self._should_stop():
                return
            yield self._alone(path)

    def _alone(self, path: ExecutionPath) -> Outcome:
        try:
            outcome = next(iter(self._evaluator([path])))
        except ParetopathError:
            raise
        except Exception as error:
            return self._failed(error)
        self._raised, self._sound = 0, path
        return outcome

    def _failed(self, error: Exception) -> Exception:
        self._raised += 1
        if self._raised >= _PATIENCE:
            next(iter(self._evaluator([self._sound])))
            self._raised = 0
        return error
