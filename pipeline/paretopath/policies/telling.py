"""What one run of a path's exits tells of all its policies by shares.

The exits say the same whoever leaves, so that a path needs its images once, whatever shares of them
leave where; and so do the paths that end at its exits.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretopath.front.dominance import pareto_front
from paretopath.paths import ExecutionPath, IndexMatrix
from paretopath.policies.leaving import Bools, Floats
from paretopath.policies.shares import SHARES, LeavingSpace, WaysOut
from paretopath.tasks.classification.task import proportion_error
from paretopath.tasks.task import Score

CostOf = Callable[[IndexMatrix], Floats]
"""What a search minimises, (n,) of canonical rows (n, n_decisions)."""

MOST_TOLD = 16
"""Paths that an evaluation tells of beside its own: so many of those that no other of them beats,
evenly by rank of cost."""

_MOST_TRIED = 512
"""Policies: more are a random part of them."""


@dataclass(frozen=True)
class _Waiting:
    """The images that no exit so far let go.

    Attributes:
        choices: for each exit so far, which of :data:`SHARES` left of those that came.
        images: numbers of the others, rising.
        hits: right answers among those that left.
    """

    choices: tuple[int, ...]
    images: npt.NDArray[np.intp]
    hits: int


def hits_of_shares(
    confidences: Sequence[npt.NDArray[np.floating]], right: Sequence[Bools]
) -> tuple[IndexMatrix, npt.NDArray[np.int64]]:
    """The right answers of policies by shares, every combination of :data:`SHARES` unless they are
    many. See :func:`~paretopath.policies.shares.leave_by_shares`.

    Args:
        confidences: for each exit but the last, (images,).
        right: for each exit, (images,).

    Returns:
        (n, exits - 1) which share leaves at each exit but the last, and (n,) right answers.
    """
    rng = np.random.default_rng(0)
    nodes = [_Waiting((), np.arange(len(right[-1])), 0)]
    for confidence, is_right in zip(confidences, right, strict=False):
        nodes = [later for node in nodes for later in _leave(node, confidence, is_right)]
        if len(nodes) > _MOST_TRIED:
            some = rng.choice(len(nodes), _MOST_TRIED, replace=False)
            nodes = [nodes[i] for i in np.sort(some).tolist()]
    choices = np.array([node.choices for node in nodes], dtype=np.int16)
    hits = [node.hits + int(right[-1][node.images].sum()) for node in nodes]
    return choices, np.array(hits)


def _leave(node: _Waiting, confidence: npt.NDArray[np.floating], is_right: Bools) -> list[_Waiting]:
    """What is left when each share of the images leaves at the next exit."""
    surest = node.images[np.argsort(-confidence[node.images], kind="stable")]
    won = np.concatenate([[0], np.cumsum(is_right[surest])])
    counts = [round(share * len(surest)) for share in SHARES]
    return [
        _Waiting((*node.choices, choice), np.sort(surest[count:]), node.hits + int(won[count]))
        for choice, count in enumerate(counts)
    ]


def tell(
    space: LeavingSpace,
    path: ExecutionPath,
    apart: WaysOut,
    confidences: Sequence[npt.NDArray[np.floating]],
    right: Sequence[Bools],
    cost_of: CostOf,
) -> dict[ExecutionPath, Score]:
    """The scores of other paths with policies on the ways of one that was evaluated: those that
    none of these beats.

    Args:
        space: of the paths.
        path: that was evaluated.
        apart: its ways.
        confidences: for each way, (images,).
        right: for each way, (images,).
        cost_of: what counts beside accuracy.
    """
    images = len(right[-1])
    columns = [space.positions[name] for name in apart.decisions]
    found = [np.zeros((0, len(space.decisions)), dtype=np.int16)]
    hits: list[int] = []
    for last, row in enumerate(space.encode(map(space.canonical, apart.ways))):
        choices, counts = hits_of_shares(confidences[:last], right[: last + 1])
        rows = np.repeat(row[None], len(choices), axis=0)
        rows[:, columns[:last]] = choices
        found.append(rows)
        hits += counts.tolist()
    rows = np.concatenate(found)
    costs = cost_of(rows)
    stays = np.flatnonzero(pareto_front(hits, costs))
    stays = stays[np.argsort(costs[stays], kind="stable")]
    if len(stays) > MOST_TOLD:
        stays = stays[np.linspace(0, len(stays) - 1, MOST_TOLD).round().astype(int)]
    scores = (
        Score(hits[i] / images, proportion_error(hits[i], images), images) for i in stays.tolist()
    )
    told = dict(zip(space.decode(rows[stays]), scores, strict=True))
    told.pop(path, None)
    return told
