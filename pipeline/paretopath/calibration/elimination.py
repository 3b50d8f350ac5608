"""The order in which channels are worth keeping, when the weights of those left are re-solved.

Backward elimination by the criterion of the Optimal Brain Surgeon (Hassibi & Stork, NIPS 1992): the
channel q to go next is the one whose loss, once all weights left are re-solved for it, raises the
squared error of the layer's outputs least,

    L_q = |w_q|^2 / [Sigma_SS^-1]_qq,

with w_q the (re-solved) weights that read it and Sigma_SS the covariance of the inputs S that are
left. For inputs that go together, such as those of an attention head, tr(P_qq^-1 W_q^T W_q) with
the block P_qq of Sigma_SS^-1. A channel that several layers read adds up its losses in all of them,
each as a share of the variance of that layer's outputs.
"""

from collections.abc import Hashable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from paretopath.elastic.ridge import ridged

L = TypeVar("L", bound=Hashable)

PENDING = 64
"""Rows of updates that are gathered before they are applied together, as one matrix product."""


class Eliminated:
    """One layer whose inputs are eliminated.

    Dropping an input changes both matrices by outer products. Choosing the next one takes their
    diagonals alone, so products are gathered and applied many at a time.

    Args:
        weight: (outputs, K) or (outputs, K, FY, FX); a filter's taps count as outputs.
        covariance: (K, K) of the inputs.
        ridge: added to the variances, as a share of their mean.
    """

    def __init__(self, weight: Tensor, covariance: Tensor, ridge: float) -> None:
        w = weight.double().cpu().movedim(1, -1).reshape(-1, weight.shape[1])  # (outputs, K)
        covariance = ridged(covariance, ridge)
        self._gram = w.T @ w  # W^T W of the re-solved weights
        self._precision = torch.linalg.inv(covariance)
        variance = (covariance * self._gram).sum()
        self.scale = 1.0 / max(float(variance), torch.finfo(torch.float64).tiny)
        self._p, self._m, self._g, self._h = torch.zeros(4, PENDING, len(covariance)).double()
        self._apply(0)

    def losses(self, blocks: Tensor) -> Tensor:
        """(n,) error that dropping each block of inputs (n, width) adds, as a share of variance."""
        if blocks.shape[1] == 1:
            q = blocks[:, 0]
            alone: Tensor = self.scale * self._gram_diagonal[q] / self._precision_diagonal[q]
            return alone
        self._apply(self._pending)
        rows, columns = blocks[:, :, None], blocks[:, None, :]
        solved = _solve(self._precision[rows, columns], self._gram[rows, columns])
        together: Tensor = self.scale * solved.diagonal(dim1=1, dim2=2).sum(1)
        return together

    def drop(self, block: Tensor) -> None:
        """Takes inputs (width,) away and re-solves the others' weights."""
        if self._pending + len(block) > PENDING:
            self._apply(self._pending)
        p, g = self._rows(block)  # (width, K) each
        m = _solve(p[:, block], p)
        h = g - g[:, block] @ m
        if len(block) > PENDING:
            self._subtract(p, m, g, h)
            return
        span = slice(self._pending, self._pending + len(block))
        self._p[span], self._m[span], self._g[span], self._h[span] = p, m, g, h
        self._precision_diagonal -= (p * m).sum(0)
        self._gram_diagonal -= ((g + h) * m).sum(0)
        self._pending += len(block)

    def _rows(self, block: Tensor) -> tuple[Tensor, Tensor]:
        """Rows (width, K) of precision and gram, what is pending included."""
        p, m, g, h = (rows[: self._pending] for rows in (self._p, self._m, self._g, self._h))
        precision = self._precision[block] - p[:, block].T @ m
        return precision, self._gram[block] - g[:, block].T @ m - m[:, block].T @ h

    def _apply(self, rows: int) -> None:
        self._subtract(self._p[:rows], self._m[:rows], self._g[:rows], self._h[:rows])

    def _subtract(self, p: Tensor, m: Tensor, g: Tensor, h: Tensor) -> None:
        if len(p):
            self._precision.addmm_(p.T, m, alpha=-1.0)
            self._gram.addmm_(g.T, m, alpha=-1.0)
            self._gram.addmm_(m.T, h, alpha=-1.0)
        self._pending = 0
        self._precision_diagonal = self._precision.diagonal().clone()
        self._gram_diagonal = self._gram.diagonal().clone()


def _solve(a: Tensor, b: Tensor) -> Tensor:
    """``a^-1 b``; 0 where updates have rounded a block that nothing needs to a singular one."""
    solved: Tensor = torch.linalg.solve_ex(a, b).result
    return solved.nan_to_num(0.0, 0.0, 0.0)


def eliminate(
    problems: Mapping[L, Eliminated], groups: Sequence[Mapping[L, Tensor]]
) -> list[Tensor]:
    """Eliminates all channels but the last of each group, the cheapest of all groups first.

    Args:
        problems: by the reading layer, or its name; used up.
        groups: for each group of channels, and each layer that reads it, the layer's columns of
            each channel: (entries, width).

    Returns:
        For each group the (entries,) channels by falling worth: the one eliminated last comes
        first.
    """
    left = [list(range(len(next(iter(group.values()))))) for group in groups]
    gone: list[list[int]] = [[] for _ in groups]
    while any(len(entries) > 1 for entries in left):
        best: tuple[float, int, int] | None = None
        for i, group in enumerate(groups):
            if len(left[i]) > 1:
                chosen = torch.tensor(left[i])
                losses = sum(
                    (problems[name].losses(blocks[chosen]) for name, blocks in group.items()),
                    start=torch.zeros(len(chosen), dtype=torch.float64),
                )
                place = int(losses.argmin())
                if best is None or float(losses[place]) < best[0]:
                    best = (float(losses[place]), i, place)
        assert best is not None
        _, i, place = best
        entry = left[i].pop(place)
        gone[i].append(entry)
        for name, blocks in groups[i].items():
            problems[name].drop(blocks[entry])
    return [torch.tensor(kept + dropped[::-1]) for kept, dropped in zip(left, gone, strict=True)]
