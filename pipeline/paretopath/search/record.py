"""The durable record of a search: an Optuna study whose trials are evaluated paths alone.

A trial is added as WAITING with its decisions and its exact costs, claimed (RUNNING) just before
its images are run, and finished as COMPLETE, PRUNED or FAIL. Each step is one durable write for all
the paths it concerns.

PRUNED are those that racing stopped. They have no values, so that everything of Optuna's that looks
for a front (``best_trials``, its dashboard, its samplers) passes over them; the accuracy that they
promised is among their attributes.
"""

import math
import warnings
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import islice
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState, create_trial

from paretopath.costs import COST_NAMES
from paretopath.errors import RunDirectoryError
from paretopath.paths import ExecutionPath, IndexMatrix
from paretopath.search.candidates import Floats, Mask, Problem
from paretopath.search.storage import StudyStorage
from paretopath.search.trials import Evaluated, ToldRows, evaluated, load_study, read_trial
from paretopath.tasks.task import Score, Stopped, Told

__all__ = ["Evaluated", "Record", "evaluated", "load_study"]

SCHEMA = 1


class Record:
    """Reads and writes the trials of one search. Its arrays have a row for each trial, by number.

    Trials are numbered in the order in which the storage took them, which is the same for everyone
    who reads it. Of equal paths, which can only come from a worker that was taken for dead and
    woke up, the first counts; the others are surplus: never evaluated, never finished.

    Args:
        problem: what is searched.
        storage: where.
        settings: what makes a search the same search (seed, sampler …), JSON values; a study that
            exists must have been started with the same.

    Raises:
        RunDirectoryError: the study that exists was started with other settings.
    """

    def __init__(
        self, problem: Problem, storage: StudyStorage, settings: Mapping[str, Any]
    ) -> None:
        self.problem = problem
        self.storage = storage
        self.study = _open_study(problem, storage, settings)
        self._study_id = storage.optuna.get_study_id_from_name(storage.study)
        self._ids: list[int] = []
        self._distributions: dict[str, BaseDistribution] = {
            d.name: CategoricalDistribution(d.distinct) for d in problem.space.decisions
        }
        n_decisions = len(problem.space.decisions)
        self.matrix: IndexMatrix = np.zeros((0, n_decisions), dtype=np.int16)
        self.accuracy: Floats = np.zeros(0)  # NaN until finished, and where failed
        self.error: Floats = np.zeros(0)
        self.partial: Mask = np.zeros(0, dtype=bool)  # stopped before they saw all images
        self.cost: Floats = np.zeros(0)
        self.fits: Mask = np.zeros(0, dtype=bool)
        self.unfinished: list[int] = []  # without surplus ones
        self.surplus: list[int] = []
        self.told: dict[int, ToldRows] = {}  # of other paths, by trial
        self._paths: set[bytes] = set()
        self.refresh()

    def __len__(self) -> int:
        return len(self._ids)

    def missing(self, trials: int) -> int:
        """How many trials must be added until there are so many."""
        return trials - (len(self) - len(self.surplus))

    def first(self, trials: int) -> list[int]:
        """The unfinished ones among the first so many trials, surplus ones not counted."""
        if self.missing(trials) >= 0:
            return list(self.unfinished)
        surplus = set(self.surplus)
        counted = (number for number in range(len(self)) if number not in surplus)
        wanted = set(islice(counted, trials))
        return [number for number in self.unfinished if number in wanted]

    @property
    def finished(self) -> int:
        """How many trials are COMPLETE, PRUNED or FAIL."""
        return len(self) - len(self.surplus) - len(self.unfinished)

    @property
    def failed(self) -> int:
        """How many trials are FAIL."""
        return self.finished - int(np.isfinite(self.accuracy).sum())

    @property
    def stopped(self) -> int:
        """How many trials are PRUNED."""
        return int(self.partial.sum())

    def best(self) -> Evaluated | None:
        """The most accurate complete trial within the budgets, the cheapest of equals; None without
        any.
        """
        fits = np.flatnonzero(np.isfinite(self.accuracy) & self.fits & ~self.partial)
        if not len(fits):
            return None
        order = np.lexsort((self.cost[fits], -self.accuracy[fits]))
        return self.read([int(fits[order[0]])])[0]

    def append(self, matrix: IndexMatrix) -> None:
        """Adds trials in one durable write; one whose costs are not finite fails here, by name."""
        priced = self.problem.pricer.encoded(matrix)
        columns = {name: np.asarray(priced[name], dtype=float) for name in COST_NAMES}
        paths = self.problem.space.decode(matrix)
        with self.storage.batch():
            for i, path in enumerate(paths):
                costs = {name: float(column[i]) for name, column in columns.items()}
                self.storage.optuna.create_new_trial(
                    self._study_id, template_trial=self._template(path, costs)
                )
        self.refresh()

    def claim(self, numbers: Iterable[int]) -> None:
        """Marks trials as RUNNING in one durable write; what a dead process left so starts anew."""
        with self.storage.batch():
            for number in numbers:
                trial_id = self._ids[number]
                with suppress(UpdateFinishedTrialError):  # whoever had it before was not dead
                    set_state = self.storage.optuna.set_trial_state_values
                    if not set_state(trial_id, TrialState.RUNNING):
                        set_state(trial_id, TrialState.WAITING)
                        set_state(trial_id, TrialState.RUNNING)

    def finish(self, outcomes: Mapping[int, Score | Stopped | Exception]) -> None:
        """Records what trials came to, by number, in one durable write; the first outcome stays.

        The arrays have it after :meth:`refresh`.
        """
        with self.storage.batch():
            for number, outcome in outcomes.items():
                with suppress(UpdateFinishedTrialError):
                    self._finish(number, outcome)

    def read(self, numbers: Iterable[int]) -> tuple[Evaluated, ...]:
        """Trials by number."""
        return tuple(
            read_trial(self.storage.optuna.get_trial(self._ids[number]), self.problem.space)
            for number in numbers
        )

    def _finish(self, number: int, outcome: Score | Stopped | Exception) -> None:
        score = outcome.score if isinstance(outcome, Stopped) else outcome
        failure = _failure(score)
        attrs: dict[str, Any] = {}
        if failure is None:
            assert isinstance(score, Score)
            attrs = {"accuracy_error": score.error, "samples": score.samples}
            if isinstance(score, Told) and score.also:
                attrs["also"] = ToldRows.dump(score.also, self.problem.space)
        values = None
        if failure is not None:
            state, attrs = TrialState.FAIL, {"failure": failure}
        elif isinstance(outcome, Stopped):
            state = TrialState.PRUNED
            attrs |= {"accuracy": float(outcome.score.value), "beaten_by": outcome.beaten_by}
        else:
            assert isinstance(outcome, Score)
            state, values = TrialState.COMPLETE, [float(outcome.value), float(self.cost[number])]
        for name, value in attrs.items():
            self.storage.optuna.set_trial_user_attr(self._ids[number], name, value)
        self.storage.optuna.set_trial_state_values(self._ids[number], state, values)

    def _template(self, path: ExecutionPath, costs: Mapping[str, float]) -> FrozenTrial:
        failure = _unpriced(self.problem, costs)
        attrs: dict[str, Any] = {"path": path.id}
        attrs |= {name: value for name, value in costs.items() if math.isfinite(value)}
        if failure is not None:
            attrs["failure"] = failure
        return create_trial(
            state=TrialState.WAITING if failure is None else TrialState.FAIL,
            params=dict(path),
            distributions={name: self._distributions[name] for name in path},
            user_attrs=attrs,
            constraints={
                name: costs[name] - bound
                for name, bound in self.problem.budgets.items()
                if math.isfinite(costs[name])
            },
        )

    def refresh(self) -> list[int]:
        """Reads what was written since, by anyone; the numbers of the trials that finished."""
        trials = self.study.get_trials(deepcopy=False)
        finished = [n for n in self.unfinished if trials[n].state.is_finished()]
        for number in finished:
            self._set_score(read_trial(trials[number], self.problem.space))
        new = [read_trial(trial, self.problem.space) for trial in trials[len(self) :]]
        if new:
            self._ids += [trial._trial_id for trial in trials[len(self) :]]
            self._add_rows(new)
        done = {*finished}
        self.unfinished = [number for number in self.unfinished if number not in done]
        return finished + [r.number for r in new if r.state.is_finished()]

    def _add_rows(self, records: Sequence[Evaluated]) -> None:
        rows = self.problem.space.encode(record.path for record in records)
        gap = np.full(len(records), np.nan)
        costs = [record.costs.get(self.problem.cost, np.nan) for record in records]
        self.matrix = np.concatenate([self.matrix, rows])
        self.accuracy = np.concatenate([self.accuracy, gap])
        self.error = np.concatenate([self.error, gap])
        self.partial = np.concatenate([self.partial, np.zeros(len(records), dtype=bool)])
        self.cost = np.concatenate([self.cost, np.array(costs)])
        self.fits = np.concatenate([self.fits, np.array([r.fits for r in records], dtype=bool)])
        for record, row in zip(records, rows, strict=True):
            if row.tobytes() in self._paths:
                self.surplus.append(record.number)
            elif record.state.is_finished():
                self._set_score(record)
            else:
                self.unfinished.append(record.number)
            self._paths.add(row.tobytes())

    def _set_score(self, record: Evaluated) -> None:
        if record.score:
            self.accuracy[record.number] = record.score.value
            self.error[record.number] = record.score.error
            self.partial[record.number] = record.state == TrialState.PRUNED
            told = ToldRows.of(record)
            if told is not None:
                self.told[record.number] = told


def _open_study(
    problem: Problem, storage: StudyStorage, settings: Mapping[str, Any]
) -> optuna.Study:
    wanted = {
        "schema": SCHEMA,
        "cost": problem.cost,
        "budgets": dict(problem.budgets),
        "decisions": [[d.name, [str(v) for v in d.distinct]] for d in problem.space.decisions],
        **settings,
    }
    with storage.batch(), warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study = optuna.create_study(
            study_name=storage.study,
            storage=storage.optuna,
            directions=["maximize", "minimize"],
            load_if_exists=True,
        )
        found = study.user_attrs.get("search")
        if found is None:
            study.set_metric_names(["accuracy", problem.cost])
            study.set_user_attr("search", wanted)
            found = wanted
    for name, value in wanted.items():
        if found.get(name) != value:
            raise RunDirectoryError(
                f"a search that is resumed must keep its settings, but {name} was "
                f"{found.get(name)!r} and is now {value!r}; take another run directory"
            )
    return study


def _unpriced(problem: Problem, costs: Mapping[str, float]) -> str | None:
    """Why a path with these costs can't be a trial; None if it can."""
    for name in (problem.cost, *problem.budgets):
        if not math.isfinite(costs[name]):
            return f"a cost must be finite, but {name} is {costs[name]}"
    return None


def _failure(outcome: Score | Exception) -> str | None:
    if isinstance(outcome, Exception):
        return f"{type(outcome).__name__}: {outcome}"
    if not math.isfinite(outcome.value):
        return f"an accuracy must be finite, but got {outcome.value}"
    return None
