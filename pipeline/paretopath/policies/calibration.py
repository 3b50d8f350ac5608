"""What confidences are worth: temperatures, and the accuracy to be expected at a confidence."""

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from scipy.optimize import minimize_scalar
from torch import Tensor

Floats = npt.NDArray[np.float64]

_HOTTEST = 100.0  # temperatures are sought between this and its inverse


def fit_temperature(logits: Tensor, targets: Tensor) -> float:
    """The temperature that makes class probabilities most likely (Guo et al., "On Calibration of
    Modern Neural Networks", arXiv 1706.04599).

    Args:
        logits: (images, classes).
        targets: (images,) int64.
    """
    double = logits.double()

    def loss(log_temperature: float) -> float:
        return float(F.cross_entropy(double / math.exp(log_temperature), targets))

    bound = math.log(_HOTTEST)
    found = minimize_scalar(loss, bounds=(-bound, bound), method="bounded")
    return float(math.exp(found.x))


@dataclass(frozen=True)
class ExpectedAccuracy:
    """The accuracy to be expected where an exit has a confidence: logistic in the confidence's
    logit, and never falling.

    Attributes:
        slope: at least 0.
        intercept: the logit of the accuracy at a confidence of one half.
    """

    slope: float
    intercept: float

    @classmethod
    def fit(
        cls, confidences: npt.NDArray[np.floating], right: npt.NDArray[np.bool_]
    ) -> "ExpectedAccuracy":
        """Maximum likelihood (Platt, "Probabilistic outputs for support vector machines", 1999),
        his targets, which stay off 0 and 1, included.

        Args:
            confidences: (images,) in [0, 1].
            right: (images,).
        """
        x = torch.from_numpy(_logit(confidences))
        hits, misses = int(right.sum()), int((~right).sum())
        y = torch.from_numpy(np.where(right, (hits + 1) / (hits + 2), 1 / (misses + 2)))
        weights = torch.zeros(2, dtype=torch.float64)
        design = torch.stack([x, torch.ones_like(x)], 1)
        for _ in range(50):  # Newton's steps of a problem of two unknowns
            p = (design @ weights).sigmoid()
            gradient = design.T @ (p - y) + 1e-6 * weights
            curvature = (design.T * (p * (1 - p))) @ design + 1e-6 * torch.eye(2)
            step = torch.linalg.solve(curvature, gradient)
            weights -= step.clamp(-2, 2)
            if float(step.abs().max()) < 1e-9:
                break
        slope, intercept = weights.tolist()
        if not slope > 0:  # confidence says nothing here: the mean accuracy throughout
            return cls(0.0, float(_logit(np.array([(hits + 1) / (len(right) + 2)]))[0]))
        return cls(slope, intercept)

    def threshold(self, accuracy: Floats) -> Floats:
        """The least confidences at which accuracies are to be expected; over 1 where none has."""
        wanted = _logit(accuracy) - self.intercept
        if self.slope == 0:
            return np.where(wanted <= 0, 0.0, 2.0)
        with np.errstate(over="ignore"):
            return np.asarray(1 / (1 + np.exp(-wanted / self.slope)), dtype=np.float64)


def _logit(share: npt.NDArray[np.floating]) -> Floats:
    inside = np.clip(np.asarray(share, dtype=np.float64), 1e-7, 1 - 1e-7)
    return np.asarray(np.log(inside) - np.log1p(-inside), dtype=np.float64)
