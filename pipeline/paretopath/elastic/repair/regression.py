"""What inputs still explain of a gap: ridge regression, its ridge chosen on rows held out."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from paretopath.elastic.ridge import ridged

SHARES = (1e-3, 1e-2, 1e-1, 1.0)
"""Ridges that are tried, as shares of the inputs' mean variance."""


def regress(
    inputs: Tensor, gap: Tensor, held: Tensor, *, shares: Sequence[float] = SHARES
) -> tuple[Tensor, Tensor]:
    """The correction of a linear layer that makes up for a gap in its outputs, as far as it can.

    Of the corrections min E|gap - D x - s|^2 + ridge |D|^2 for several ridges, of the shift s alone
    and of none at all, the one with the least error on the rows that are held out is taken, and
    solved again on all rows. So a layer is left as it is where nothing can be learnt about it.

    Args:
        inputs: (n, K) x.
        gap: (n, outputs).
        held: (n,) bool, which rows are held out; some, not all.
        shares: ridges, as shares of the inputs' mean variance.

    Returns:
        D (outputs, K) and s (outputs,), of the data type of ``inputs``.
    """
    seen, unseen = inputs[held], gap[held]
    fitted, unfitted = _Sums.of(inputs[~held], gap[~held]), _Sums.of(seen, unseen)
    left = unseen - fitted.gap_mean
    errors: dict[float | None, float] = {None: float(left.square().sum())}
    centered = seen - fitted.mean
    for share, delta in zip(shares, fitted.solve(shares), strict=True):
        errors[share] = float((left - centered @ delta.T).square().sum())
    best = min(errors, key=lambda share: errors[share])
    if float(unseen.square().sum()) <= errors[best]:
        return inputs.new_zeros(gap.shape[1], inputs.shape[1]), inputs.new_zeros(gap.shape[1])
    if best is None:
        return inputs.new_zeros(gap.shape[1], inputs.shape[1]), gap.mean(0)
    whole = fitted + unfitted
    (delta,) = whole.solve([best])
    return delta, whole.gap_mean - delta @ whole.mean


@dataclass(frozen=True)
class _Sums:
    """Means and central products of rows, which add up (Chan, Golub and LeVeque, 1983, eq. 2.1)."""

    rows: int
    mean: Tensor
    gap_mean: Tensor
    products: Tensor
    cross: Tensor

    @classmethod
    def of(cls, inputs: Tensor, gap: Tensor) -> Self:
        mean, gap_mean = inputs.mean(0), gap.mean(0)
        centered = inputs - mean
        products, cross = centered.T @ centered, centered.T @ (gap - gap_mean)
        return cls(len(inputs), mean, gap_mean, products.double(), cross.double())

    def __add__(self, other: Self) -> "_Sums":
        rows = self.rows + other.rows
        apart, gaps_apart = other.mean - self.mean, other.gap_mean - self.gap_mean
        share = other.rows / rows
        weight = self.rows * share
        return _Sums(
            rows,
            self.mean + share * apart,
            self.gap_mean + share * gaps_apart,
            self.products + other.products + weight * torch.outer(apart, apart),
            self.cross + other.cross + weight * torch.outer(apart, gaps_apart),
        )

    def solve(self, shares: Sequence[float]) -> Iterator[Tensor]:
        """(outputs, K) for each ridge."""
        covariance = self.products / self.rows
        variance = covariance.diagonal().mean()
        for share in shares:
            shifted = covariance.clone()
            shifted.diagonal().add_(share * variance)
            factor, failed = torch.linalg.cholesky_ex(shifted)
            if failed or not variance > 0:
                factor = torch.linalg.cholesky(ridged(covariance, share))
            yield torch.cholesky_solve(self.cross / self.rows, factor).T.to(self.mean.dtype)
