"""Covariances that can be solved with, whatever the inputs were.

Constant inputs, copies of one another and fewer samples than inputs make a covariance singular, and
rounding makes it slightly indefinite. A ridge mends both.
"""

import torch
from torch import Tensor

from paretopath.errors import InvalidValueError

LEAST = 1e-10
"""Least ridge, as a share of the mean variance: under it, updates in float64 have no digit left."""


def ridged(covariance: Tensor, share: float, *, variance: Tensor | None = None) -> Tensor:
    """A positive definite copy, float64: the least ridge from ``share`` on that makes it so is
    added to the diagonal.

    Args:
        covariance: (K, K), finite.
        share: of the mean variance.
        variance: (n,) whose mean it is a share of; the diagonal's if None. Where nothing varies,
            the ridge is a share of 1.

    Raises:
        InvalidValueError: the covariance is not finite.
    """
    matrix = covariance.double().clone()
    if not torch.isfinite(matrix).all():
        raise InvalidValueError(
            "the moments of a layer's inputs must be finite, but are not: the model's weights, or "
            "its images, hold values that are too large or not numbers"
        )
    mean = (matrix.diagonal() if variance is None else variance.double()).mean()
    step = max(share, LEAST) * (mean if mean > 0 else torch.ones_like(mean))
    matrix.diagonal().add_(step)
    while len(matrix) and torch.linalg.cholesky_ex(matrix).info != 0:
        matrix.diagonal().add_(9 * step)  # ten times as much in all
        step = 10 * step
    return matrix
