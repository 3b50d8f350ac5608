"""The proposers to choose from: the accuracy model, chance, and Optuna's own samplers."""

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, NSGAIISampler, TPESampler
from optuna.trial import TrialState, create_trial

from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import ABSENT, IndexMatrix
from paretopath.search.candidates import Problem, fresh, random_paths, repair
from paretopath.search.proposer import History, ModelProposer, Proposer

SAMPLERS = ("model", "nsga2", "tpe", "gp", "random")


class RandomProposer:
    """Uniform over each decision's values.

    Args:
        problem: what is searched.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem

    def propose(self, history: History, count: int, rng: np.random.Generator) -> IndexMatrix:
        """See :class:`Proposer`."""
        return random_paths(self._problem, history.matrix, count, rng)


class OptunaProposer:
    """One of Optuna's samplers, asked on a study in memory that mirrors the record.

    Every decision is asked, also those that do not matter on a path, so that all trials have the
    same parameters (samplers fall back to chance where they differ); in the mirror those stand at
    their fullest value. What is asked is repaired where it misses a budget, and asked again where
    it was seen; none of that reaches the record.

    Args:
        problem: what is searched.
        sampler: ``nsga2``, ``tpe`` or ``gp``.
    """

    def __init__(self, problem: Problem, sampler: str) -> None:
        self._problem = problem
        self._sampler = sampler
        self._study = optuna.create_study(directions=["maximize", "minimize"])
        self._told: set[int] = set()
        decisions = problem.space.decisions
        self._distributions: dict[str, BaseDistribution] = {
            d.name: CategoricalDistribution(d.distinct) for d in decisions
        }
        self._sizes = np.array([len(d.values) for d in decisions])

    def propose(self, history: History, count: int, rng: np.random.Generator) -> IndexMatrix:
        """See :class:`Proposer`."""
        history = history.trials
        self._study.sampler = _create_sampler(self._sampler, int(rng.integers(2**31)))
        for number in np.flatnonzero(np.isfinite(history.accuracy)).tolist():
            if number not in self._told:
                self._tell(history, number)
                self._told.add(number)
        found = history.matrix[:0]
        count = min(count, self._problem.space.size - len(history))
        for _ in range(4 if count else 0):
            rows = np.stack([self._ask() for _ in range(count - len(found))])
            rows = repair(self._problem, self._problem.space.canonical_encoded(rows), rng)
            seen = np.concatenate([history.matrix, found])
            found = np.concatenate([found, fresh(self._problem, rows, seen)])
            if len(found) == count:
                return found
        seen = np.concatenate([history.matrix, found])
        rest = random_paths(self._problem, seen, count - len(found), rng)
        return np.concatenate([found, rest])

    def _ask(self) -> IndexMatrix:
        trial = self._study.ask(self._distributions)
        self._study.tell(trial, state=TrialState.FAIL)  # samplers ignore failed trials
        decisions = self._problem.space.decisions
        return np.array([d.index(trial.params[d.name]) for d in decisions], dtype=np.int16)

    def _tell(self, history: History, number: int) -> None:
        """Adds a finished trial; for a genetic sampler, so that it knows its generation."""
        row = np.where(history.matrix[number] == ABSENT, self._sizes - 1, history.matrix[number])
        decisions = self._problem.space.decisions
        params = {d.name: d.values[i] for d, i in zip(decisions, row.tolist(), strict=True)}
        values = [float(history.accuracy[number]), float(history.cost[number])]
        if self._sampler != "nsga2":
            self._study.add_trial(
                create_trial(params=params, distributions=self._distributions, values=values)
            )
            return
        self._study.enqueue_trial(params)
        trial = self._study.ask(self._distributions)
        _ = trial.relative_params  # numbers the trial's generation, which enqueueing alone does not
        self._study.tell(trial, values)


def create_proposer(sampler: str, problem: Problem) -> Proposer:
    """The proposer of that name.

    Raises:
        InvalidValueError: there is none.
    """
    if sampler == "model":
        return ModelProposer(problem)
    if sampler == "random":
        return RandomProposer(problem)
    if sampler in ("nsga2", "tpe", "gp"):
        return OptunaProposer(problem, sampler)
    raise InvalidValueError(f"there is no sampler {sampler!r}; {nearest(sampler, SAMPLERS)}")


def _create_sampler(name: str, seed: int) -> BaseSampler:
    if name == "nsga2":
        return NSGAIISampler(seed=seed)
    if name == "tpe":
        return TPESampler(seed=seed)
    return GPSampler(seed=seed)
