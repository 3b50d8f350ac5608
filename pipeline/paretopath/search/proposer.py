"""Proposals from a model of accuracy: the paths that promise most hypervolume, by exact cost."""

import heapq
from bisect import bisect_left, bisect_right
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from paretopath.paths import IndexMatrix
from paretopath.search.candidates import Floats, Mask, Problem, random_paths
from paretopath.search.evolution import Archive, evolve
from paretopath.search.hyperparameters import fit_hyperparameters
from paretopath.search.surrogate import AccuracyModel, Encoding, Hyperparameters, Measurements

_FIRST_MODEL = 24  # trials, the first ones included, before a model is trusted to propose
_REFIT = 1.4  # hyperparameters are fitted anew whenever there are so many times more trials
_MAX_MEASURED = 1000  # points that the model rests on: those nearest to the front
_EVALUATIONS = 60_000  # of the model, for each generation
_BINS = 1000  # of cost, in each of which the best path is kept
_OPTIMISM = (0.0, 0.5, 1.0, 2.0, 4.0)  # standard deviations, in turn while too few are promising
_MARGIN = 1.1  # the hypervolume's reference cost over the largest cost that matters


@dataclass(frozen=True)
class History:
    """Every trial so far, in order, each followed by what it told of other paths. All have
    finished, unless several workers share a search.

    Attributes:
        matrix: (n, n_decisions) canonical value indices.
        accuracy: (n,), in [0, 1]; NaN where a trial failed or has not finished.
        error: (n,) standard errors of the accuracies; NaN where a trial failed or has not finished.
        cost: (n,) objective costs; NaN where a trial failed for it.
        pending: (n,) which trials have not finished; None: none.
        partial: (n,) which trials were stopped before they saw all images: their accuracies are
            expectations, their errors larger by it; None: none.
        told: (n,) which rows are no trials, but paths that the one before told of; None: none.
    """

    matrix: IndexMatrix
    accuracy: Floats
    error: Floats
    cost: Floats
    pending: Mask | None = None
    partial: Mask | None = None
    told: Mask | None = None

    def __len__(self) -> int:
        return len(self.matrix)

    def first(self, count: int) -> "History":
        """The first trials alone, with what they told of."""
        if self.told is None:
            return self.where(np.arange(count))
        return self.where(np.cumsum(~self.told) <= count)

    def where(self, rows: npt.NDArray[np.intp] | Mask) -> "History":
        """Some of the trials, by mask or index."""
        return History(
            self.matrix[rows],
            self.accuracy[rows],
            self.error[rows],
            self.cost[rows],
            None if self.pending is None else self.pending[rows],
            None if self.partial is None else self.partial[rows],
            None if self.told is None else self.told[rows],
        )

    @property
    def trials(self) -> "History":
        """The trials alone."""
        return self if self.told is None else self.where(~self.told)


class Proposer(Protocol):
    """Chooses the next generation."""

    def propose(self, history: History, count: int, rng: np.random.Generator) -> IndexMatrix:
        """The paths to evaluate next: a function of its arguments alone, so searches can resume.

        Args:
            history: everything evaluated before.
            count: how many paths are wanted.
            rng: the only source of randomness.

        Returns:
            (n, n_decisions) canonical rows within the budgets, no two of them, nor one and one of
            the history, told of by the same trial; n < count only where no others are left.
        """
        ...


class ModelProposer:
    """Learns accuracy from what was evaluated and searches that model with the exact cost.

    Each generation, the model is conditioned on what was measured, a genetic search finds its best
    path of every cost, and those that add most to the hypervolume, one after the other, are
    proposed.

    Args:
        problem: what is searched.
    """

    def __init__(self, problem: Problem) -> None:
        self._problem = problem
        self._encoding = Encoding(problem.space, problem.cost_of)
        self._fitted: tuple[int, Hyperparameters] | None = None

    def propose(self, history: History, count: int, rng: np.random.Generator) -> IndexMatrix:
        """See :class:`Proposer`."""
        measured = history.where(np.isfinite(history.accuracy))
        if len(measured.trials) < _FIRST_MODEL or not len(self._encoding):
            return random_paths(self._problem, history.matrix, count, rng)
        hyper = self._hyperparameters(measured)
        near = measured.where(_nearest_to_front(measured, _MAX_MEASURED))
        model = AccuracyModel(self._encoding, self._measurements(near), hyper)
        archive = evolve(
            self._problem, model.mean, history.matrix, rng, evaluations=_EVALUATIONS, bins=_BINS
        )
        candidates = archive.take(np.flatnonzero(archive.is_new))
        chosen = self._choose(measured, candidates, model, count, self._pending(history))
        seen = np.concatenate([history.matrix, chosen])
        return np.concatenate([chosen, random_paths(self._problem, seen, count - len(chosen), rng)])

    def _hyperparameters(self, measured: History) -> Hyperparameters:
        """Those of the first so many trials, a number that grows in steps: the same on resuming."""
        size, trials = _FIRST_MODEL, len(measured.trials)
        while size * _REFIT <= trials:
            size = int(size * _REFIT)
        if self._fitted is None or self._fitted[0] != size:
            first = measured.first(size)
            rng = np.random.default_rng(size)
            hyper = fit_hyperparameters(self._encoding, self._measurements(first), rng)
            self._fitted = (size, hyper)
        return self._fitted[1]

    def _pending(self, history: History) -> History:
        """The trials within the budgets that have not finished."""
        if history.pending is None:
            return history.first(0)
        known = history.where(history.pending & np.isfinite(history.cost))
        return known.where(self._problem.fits(known.matrix))

    def _measurements(self, history: History) -> Measurements:
        return Measurements.of(
            self._encoding, history.matrix, history.accuracy, history.error, history.partial
        )

    def _choose(
        self,
        measured: History,
        candidates: Archive,
        model: AccuracyModel,
        count: int,
        pending: History,
    ) -> IndexMatrix:
        """The candidates that add most hypervolume, with rising optimism while they are too few.

        Trials that are being evaluated count as if they came out as the model expects ("kriging
        believer": Ginsbourger et al., 2010), so that workers don't all go for the same gap.
        """
        within = measured.where(self._problem.fits(measured.matrix))
        if within.partial is not None:  # what was stopped was beaten: it is no part of a front
            within = within.where(~within.partial)
        # a noisy accuracy that came out well is not a front yet: there, what the model makes of it
        noisy = bool((within.error > 0).any())
        level = model.mean(within.matrix) if noisy else within.accuracy
        front = Staircase(within.cost, level, np.concatenate([within.cost, candidates.cost]).max())
        if len(pending):
            expected = model.mean(pending.matrix).tolist()
            for cost, value in zip(pending.cost.tolist(), expected, strict=True):
                front.add(cost, value)
        deviation = model.deviation(candidates.matrix)
        keys = self._problem.trial_keys(candidates.matrix)
        chosen: list[int] = []
        for optimism in _OPTIMISM:
            value = candidates.value + optimism * deviation
            value[np.isin(keys, keys[chosen])] = -np.inf
            chosen += front.climb(candidates.cost, value, count - len(chosen), keys)
        return candidates.matrix[chosen]


class Staircase:
    """The best accuracy for every cost, and what hypervolume a path would add to it.

    Args:
        cost: (n,) of evaluated paths.
        value: (n,) their accuracies.
        largest: the largest cost that matters.
    """

    def __init__(self, cost: Floats, value: Floats, largest: float) -> None:
        order = np.lexsort((-value, cost))
        best = np.maximum.accumulate(value[order])
        rises = np.concatenate([[True], best[1:] > best[:-1]])
        self._cost: list[float] = cost[order][rises].tolist()
        self._value: list[float] = best[rises].tolist()
        self._end = _MARGIN * largest
        spread = self._value[-1] - self._value[0]
        self._floor = self._value[0] - (_MARGIN - 1) * spread

    def gain(self, cost: float, value: float) -> float:
        """The area that a path adds between the staircase, the reference cost and the floor."""
        step = bisect_right(self._cost, cost)
        level = self._value[step - 1] if step else self._floor
        area = 0.0
        while level < value:
            end = self._cost[step] if step < len(self._cost) else self._end
            area += (value - level) * (end - cost)
            if step == len(self._cost):
                break
            cost, level = end, self._value[step]
            step += 1
        return area

    def add(self, cost: float, value: float) -> None:
        """Raises the staircase by a path."""
        start = bisect_left(self._cost, cost)
        if value <= (self._value[start - 1] if start else self._floor):
            return
        end = start
        while end < len(self._cost) and self._value[end] <= value:
            end += 1
        if start < len(self._cost) and self._cost[start] == cost and end == start:
            return
        self._cost[start:end] = [cost]
        self._value[start:end] = [value]

    def climb(
        self, cost: Floats, value: Floats, count: int, keys: npt.NDArray[np.uint64]
    ) -> list[int]:
        """Adds up to ``count`` of the paths, the one of greatest gain each time, and with it all of
        its key; their indices, one of each key.

        Gains only shrink as the staircase rises, so most of them need not be computed anew ("lazy
        greedy": Minoux, 1978).
        """
        costs, values = cost.tolist(), value.tolist()
        gains = [self.gain(c, v) for c, v in zip(costs, values, strict=True)]
        alike: dict[int, list[int]] = {}
        for i, key in enumerate(keys.tolist()):
            alike.setdefault(key, []).append(i)
        queue = [(-gain, i, 0) for i, gain in enumerate(gains)]
        heapq.heapify(queue)
        chosen: list[int] = []
        while queue and len(chosen) < count:
            gain, i, known = heapq.heappop(queue)
            if gain >= 0:
                break
            if known == len(chosen):
                chosen.append(i)
                for other in alike.pop(int(keys[i])):
                    self.add(costs[other], values[other])
            elif int(keys[i]) in alike:
                heapq.heappush(queue, (-self.gain(costs[i], values[i]), i, len(chosen)))
        return chosen


def _nearest_to_front(history: History, count: int) -> npt.NDArray[np.intp]:
    """The ``count`` trials least short of the best accuracy at no more than their cost."""
    order = np.lexsort((-history.accuracy, history.cost))
    short = np.empty(len(history))
    short[order] = np.maximum.accumulate(history.accuracy[order]) - history.accuracy[order]
    return np.sort(np.argsort(short, kind="stable")[:count])
