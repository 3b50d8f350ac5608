"""The search: generations of paths, proposed from what was measured, evaluated and recorded."""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np
import optuna

from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import ExecutionPath, IndexMatrix, SearchSpace
from paretopath.search.candidates import Pricer, Problem, starting_paths
from paretopath.search.proposer import History
from paretopath.search.record import Evaluated, Record
from paretopath.search.samplers import SAMPLERS, create_proposer
from paretopath.search.storage import exclusive, open_storage
from paretopath.tasks.task import Score, Stopped

RUNGS = 6  # of the ladder between the smallest and the full path
SAVE_SECONDS = 1.0  # results that come one by one reach the disk at least this often


class Evaluator(Protocol):
    """Measures the accuracy of paths: :class:`paretopath.evaluation.evaluator.Evaluator`, or a
    predictor.
    """

    def __call__(self, paths: Sequence[ExecutionPath]) -> Iterable[Score | Stopped | Exception]:
        """What each path came to, in order: a score, a stop because another path was clearly better
        (:mod:`paretopath.search.racing`), or the error for which that path alone fails.

        What is yielded early is recorded early. An error that is raised ends the search; it can be
        resumed.
        """
        ...


@dataclass(frozen=True)
class SearchSettings:
    """How to search.

    Attributes:
        trials: how many paths to evaluate, failed ones counted, those of an interrupted search too.
        seed: the same seed gives the same trials, also when killed and resumed, or continued with
            more trials.
        sampler: ``model`` (accuracy model searched with the exact cost), ``nsga2``, ``tpe``,
            ``gp``, ``random``.
        generation: how many paths are proposed together; None lets it grow with what is known.
        cost: the second objective: ``energy_mj``, ``latency_ms``, ``macs`` …
        budgets: upper bounds on costs, by name. Nothing above them is evaluated, but for the full
            path.
        paths: canonical paths to evaluate before any other but the full one.

    Raises:
        InvalidValueError: a number that is not positive, or an unknown sampler.
    """

    trials: int
    seed: int = 0
    sampler: str = "model"
    generation: int | None = None
    cost: str = "energy_mj"
    budgets: Mapping[str, float] = field(default_factory=dict)
    paths: Sequence[ExecutionPath] = ()

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("generation", self.generation)):
            if value is not None and value < 1:
                raise InvalidValueError(f"{name} must be at least 1, but got {value}")
        if self.seed < 0:
            raise InvalidValueError(f"a seed must not be negative, but got {self.seed}")
        if self.sampler not in SAMPLERS:
            raise InvalidValueError(
                f"there is no sampler {self.sampler!r}; {nearest(self.sampler, SAMPLERS)}"
            )


@dataclass(frozen=True)
class SearchProgress:
    """Where a search stands.

    Attributes:
        finished: trials that have finished, failed ones included.
        trials: how many are wanted.
        failed: how many of the finished ones failed.
        stopped: how many of them racing stopped.
        latest: those that finished since the last report.
        best: the most accurate one within the budgets; None before there is any.
    """

    finished: int
    trials: int
    failed: int
    latest: tuple[Evaluated, ...]
    best: Evaluated | None
    stopped: int = 0


def search(
    space: SearchSpace,
    pricer: Pricer,
    evaluator: Evaluator,
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
        evaluator: their accuracies.
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
        record = Record(problem, open_storage(run_dir, storage), identity(settings))
        _run(record, evaluator, settings.trials, on_progress)  # what a dead process left
        while record.missing(settings.trials) > 0:
            rows = planner.extend(record)
            if not len(rows):
                break
            record.append(rows[: record.missing(settings.trials)])
            _run(record, evaluator, settings.trials, on_progress)
    return record.study


def identity(settings: SearchSettings) -> dict[str, int | str | None]:
    """What must stay as it is when a search goes on: it decides which trials come."""
    return {
        "seed": settings.seed,
        "sampler": settings.sampler,
        "generation": settings.generation,
    }


class Planner:
    """Says which trials come next: a function of the seed and the finished trials alone.

    Generations start at fixed trial numbers. One that was cut short (by a kill, or by ``trials``)
    is proposed again from the trials before it, which gives the same paths, and goes on where it
    stopped.

    Args:
        problem: what is searched.
        settings: how.
    """

    def __init__(self, problem: Problem, settings: SearchSettings) -> None:
        self._settings = settings
        self._first = starting_paths(problem, RUNGS, settings.paths)
        self._proposer = create_proposer(settings.sampler, problem)

    def extend(self, record: Record) -> IndexMatrix:
        """The rest of the generation to which the next trial belongs; empty if no path is left."""
        begin, end = self.generation(len(record))
        if begin == 0:
            return self._first[len(record) :]
        history = History(
            record.matrix[:begin],
            record.accuracy[:begin],
            record.error[:begin],
            record.cost[:begin],
            partial=record.partial[:begin],
        )
        rng = np.random.default_rng([self._settings.seed, begin])
        return self._proposer.propose(history, end - begin, rng)[len(record) - begin :]

    def generation(self, number: int) -> tuple[int, int]:
        """The generation that holds a trial number, as a half-open range."""
        begin, end = 0, len(self._first)
        while end <= number:
            size = self._settings.generation or growing(end)
            begin, end = end, end + size
        return begin, end


def growing(known: int) -> int:
    """How many paths to propose at once when so many are known: about an eighth, later less."""
    return max(8, min(known // 8, max(64, known // 16)))


def _run(
    record: Record,
    evaluator: Evaluator,
    trials: int,
    on_progress: Callable[[SearchProgress], None] | None,
) -> None:
    """Evaluates the unfinished trials; results are kept as they come, also when interrupted."""
    numbers = list(record.unfinished)
    if not numbers:
        return
    record.claim(numbers)
    outcomes: dict[int, Score | Stopped | Exception] = {}
    saved = time.monotonic()
    reached = 0
    try:
        for outcome in evaluator(record.problem.space.decode(record.matrix[numbers])):
            if reached == len(numbers):
                raise InvalidValueError(
                    f"an evaluator must return one outcome a path, but gave more than {reached}"
                )
            outcomes[numbers[reached]] = outcome
            reached += 1
            if time.monotonic() - saved > SAVE_SECONDS:
                _save(record, outcomes, trials, on_progress)
                outcomes, saved = {}, time.monotonic()
    finally:
        _save(record, outcomes, trials, on_progress)
    if reached < len(numbers):
        raise InvalidValueError(
            f"an evaluator must return one outcome a path, but gave {reached} for {len(numbers)}"
        )


def _save(
    record: Record,
    outcomes: Mapping[int, Score | Stopped | Exception],
    trials: int,
    on_progress: Callable[[SearchProgress], None] | None,
) -> None:
    if not outcomes:
        return
    record.finish(outcomes)
    record.refresh()
    if on_progress:
        on_progress(
            SearchProgress(
                finished=record.finished,
                trials=trials,
                failed=record.failed,
                latest=record.read(outcomes),
                best=record.best(),
                stopped=record.stopped,
            )
        )
