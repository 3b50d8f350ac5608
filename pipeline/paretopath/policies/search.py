"""Policies of one path, tried without running the model, and those worth keeping.

A policy has few parameters, so that what is chosen on some images holds on others: which exits are
asked, how sure is measured, and *one* threshold for all of them. The threshold is a confidence that
all exits share, or an accuracy to be expected, which each exit's own calibration translates; where
exits are sure in different ways the second is the better of the two.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import numpy.typing as npt
import torch

from paretopath.costs import CostName
from paretopath.errors import InvalidValueError, nearest
from paretopath.front.dynamic import Policy
from paretopath.policies.calibration import ExpectedAccuracy, fit_temperature
from paretopath.policies.confidence import MEASURES, measure_named
from paretopath.policies.costs import ExitCosts
from paretopath.policies.leaving import Bools, Floats, Ints, Leaving, Left
from paretopath.policies.outputs import ExitOutputs

LEVELS = 48
"""Thresholds that are tried of each kind."""

MOST = 60_000
"""Policies that are tried of one path: of many exits, only sets of few are asked."""


@dataclass(frozen=True)
class Tried:
    """Policies of one path, and what they came to.

    Attributes:
        exits: the path's, in order.
        confidence: (policies,) names of measures.
        thresholds: (policies, exits); the last exit's means nothing.
        temperatures: (policies, exits).
        left: who left where.
        cost: (policies,) expected, by which they are compared.
        cost_error: (policies,) its standard error.
    """

    exits: tuple[str, ...]
    confidence: npt.NDArray[np.str_]
    thresholds: Floats
    temperatures: Floats
    left: Left
    cost: Floats
    cost_error: Floats

    def __len__(self) -> int:
        return len(self.cost)

    def __getitem__(self, rows: Ints | Bools | slice) -> "Tried":
        """Some of them."""
        return Tried(
            self.exits,
            self.confidence[rows],
            self.thresholds[rows],
            self.temperatures[rows],
            self.left[rows],
            self.cost[rows],
            self.cost_error[rows],
        )

    def policy(self, row: int) -> Policy:
        """One of them."""
        asked = np.flatnonzero(self.left.asked[row])
        early = asked[:-1]
        return Policy(
            confidence=str(self.confidence[row]),
            exits=tuple(self.exits[e] for e in asked),
            thresholds=tuple(self.thresholds[row, early].tolist()),
            temperatures=tuple(self.temperatures[row, early].tolist()),
        )


def search_policies(
    outputs: ExitOutputs,
    costs: ExitCosts,
    reference: Bools,
    *,
    cost: CostName,
    confidences: Sequence[str] = tuple(MEASURES),
    levels: int = LEVELS,
    most: int = MOST,
) -> Tried:
    """Tries policies of a path; the path that nobody leaves early is the first.

    Args:
        outputs: of all its exits on validation.
        costs: of its exits.
        reference: (images,) what the full path answers rightly, against which losses are.
        cost: by which policies are compared.
        confidences: names of measures.
        levels: thresholds that are tried for each measure and set of exits, two kinds each.
        most: policies to try, about.

    Raises:
        InvalidValueError: a measure that there is not, or a cost that is not known.
    """
    if cost not in costs.body:
        raise InvalidValueError(
            f"policies can't be compared by {cost}, which is not known; "
            f"{nearest(cost, list(costs.body))}"
        )
    exits = len(outputs.exits)
    temperatures = np.ones(exits)
    if any(name != "agreement" for name in confidences) and outputs.logits.ndim == 3:
        temperatures[:-1] = [
            fit_temperature(logits, outputs.targets) for logits in outputs.logits[:-1]
        ]
    tables = sum(1 if name == "agreement" else 2 for name in confidences)
    asked = list(_sets_of_exits(exits - 1, most // max(1, tables * levels)))
    parts = [_never(outputs, costs, reference, cost)]
    for name in confidences:
        if name == "agreement":
            parts += [_by_agreement(outputs, costs, reference, cost, early) for early in asked]
        else:
            parts.append(
                _by_confidence(outputs, costs, reference, cost, name, temperatures, asked, levels)
            )
    return _together(parts)


def _never(outputs: ExitOutputs, costs: ExitCosts, reference: Bools, cost: CostName) -> Tried:
    """The policy that asks no exit but the last."""
    exits = len(outputs.exits)
    thresholds = np.zeros((exits, 1))
    leaving = Leaving(np.zeros(outputs.right.shape), outputs.right, reference, thresholds)
    choices = np.full((1, exits), leaving.never)
    return _tried(outputs, costs, cost, "maximum", leaving(choices), thresholds[:, 0][None], None)


def _by_confidence(
    outputs: ExitOutputs,
    costs: ExitCosts,
    reference: Bools,
    cost: CostName,
    name: str,
    temperatures: Floats,
    asked: Sequence[Ints],
    levels: int,
) -> Tried:
    """Policies by what each exit says alone: one threshold for all exits that are asked."""
    confidences = _confidences(outputs, name, temperatures)
    thresholds = np.concatenate(
        [_shared(confidences, levels), _expected(confidences, outputs.right, levels)], axis=1
    )
    leaving = Leaving(confidences, outputs.right, reference, thresholds)
    count = thresholds.shape[1]
    choices = np.full((len(asked) * count, len(outputs.exits)), leaving.never)
    for number, early in enumerate(asked):
        choices[number * count : (number + 1) * count, early] = np.arange(count)[:, None]
    used = np.concatenate([thresholds, np.full((len(thresholds), 1), np.inf)], axis=1)
    taken = used[np.arange(len(thresholds)), choices]  # (policies, exits)
    return _tried(outputs, costs, cost, name, leaving(choices), taken, temperatures)


def _by_agreement(
    outputs: ExitOutputs, costs: ExitCosts, reference: Bools, cost: CostName, early: Ints
) -> Tried:
    """Policies by how many of the exits asked just before agree, for one set of exits."""
    exits, measure = len(outputs.exits), MEASURES["agreement"]
    confidences = np.zeros(outputs.right.shape)
    memory: tuple[torch.Tensor, ...] = ()
    for e in early:
        found, memory = measure(outputs.logits[e], memory)
        confidences[e] = found.numpy()
    patience = np.arange(1, len(early), dtype=np.float64)  # 0 would leave at the first, unasked
    thresholds = np.tile(patience, (exits, 1))
    leaving = Leaving(confidences, outputs.right, reference, thresholds)
    choices = np.full((len(patience), exits), leaving.never)
    choices[:, early] = np.arange(len(patience))[:, None]
    taken = np.tile(patience[:, None], (1, exits))
    return _tried(outputs, costs, cost, "agreement", leaving(choices), taken, None)


def _confidences(outputs: ExitOutputs, name: str, temperatures: Floats) -> Floats:
    """(exits, images) how sure each exit is by a measure without memory."""
    measure = measure_named(name)
    return np.stack(
        [
            measure(logits / temperature, ())[0].double().numpy()
            for logits, temperature in zip(outputs.logits, temperatures, strict=True)
        ]
    )


def _shared(confidences: Floats, levels: int) -> Floats:
    """(exits, levels) confidences that all exits share: quantiles of all early exits'."""
    if len(confidences) == 1:
        return np.zeros((1, levels))
    values = np.quantile(confidences[:-1], (np.arange(levels) + 0.5) / levels)
    return np.tile(values, (len(confidences), 1))


def _expected(confidences: Floats, right: Bools, levels: int) -> Floats:
    """(exits, levels) the confidences at which each exit reaches an expected accuracy, which all
    share: as dense near 1 as errors are rare there.
    """
    wanted = 1 - np.geomspace(0.5, 0.5 / confidences.shape[1], levels)
    found = [
        ExpectedAccuracy.fit(c, r).threshold(wanted)
        for c, r in zip(confidences, right, strict=True)
    ]
    return np.stack(found)


def _sets_of_exits(early: int, most: int) -> Iterator[Ints]:
    """Sets of early exits, those of few first, as many as may be tried, and all of them."""
    left = most
    for size in range(1, early + 1):
        for chosen in combinations(range(early), size):
            if left <= 1 and size < early:
                break
            left -= 1
            yield np.array(chosen)
    if early == 0:
        return


def _tried(
    outputs: ExitOutputs,
    costs: ExitCosts,
    cost: CostName,
    name: str,
    left: Left,
    thresholds: Floats,
    temperatures: Floats | None,
) -> Tried:
    expected, error = costs(left, cost)
    heat = np.ones(len(outputs.exits)) if temperatures is None else temperatures
    return Tried(
        outputs.exits,
        np.full(len(left), name),
        thresholds,
        np.tile(heat, (len(left), 1)),
        left,
        expected,
        error,
    )


def _together(parts: Sequence[Tried]) -> Tried:
    joined = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("confidence", "thresholds", "temperatures", "cost", "cost_error")
    }
    left = Left.together([part.left for part in parts])
    return Tried(exits=parts[0].exits, left=left, **joined)
