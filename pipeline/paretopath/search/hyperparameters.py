"""The hyperparameters of the accuracy model: those of greatest posterior density.

They maximise the marginal likelihood (Rasmussen and Williams, "Gaussian Processes for Machine
Learning", 2006, eq. 5.8 and 5.9) under priors around a ridge regression that is itself drawn
towards what each step of a decision costs.
"""

from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_solve, lapack
from scipy.optimize import minimize, nnls

from paretopath.search.surrogate import (
    Encoding,
    Floats,
    Hyperparameters,
    Measurements,
    covariance,
    kernels,
)

_MAX_FITTED = 400  # points on which hyperparameters are fitted: cubic cost
_ITERATIONS = 40  # of L-BFGS


def fit_hyperparameters(
    encoding: Encoding, measured: Measurements, rng: np.random.Generator
) -> Hyperparameters:
    """The hyperparameters of greatest posterior density.

    Args:
        encoding: of the paths.
        measured: what was evaluated.
        rng: chooses the points to fit on where there are more than a few hundred.
    """
    prior = _Prior.of(encoding, measured)
    count = len(measured.target)
    if count > _MAX_FITTED:
        measured = measured.where(np.sort(rng.choice(count, _MAX_FITTED, replace=False)))
    found = minimize(
        _objective,
        prior.centre,
        args=(measured, prior),
        jac=True,
        method="L-BFGS-B",
        bounds=prior.bounds,
        options={"maxiter": _ITERATIONS},
    )
    return _unpack(found.x)


@dataclass(frozen=True)
class _Prior:
    """A Gaussian prior over the packed hyperparameters (log s, u, log a_r, log a_g, log noise).

    Attributes:
        centre: its mean, where the fit starts.
        precision: its inverse variances.
        bounds: of each hyperparameter.
    """

    centre: Floats
    precision: Floats
    bounds: list[tuple[float | None, float | None]]

    @classmethod
    def of(cls, encoding: Encoding, measured: Measurements) -> "_Prior":
        slopes = _ridge(encoding.priors, measured)
        typical = np.sqrt((slopes**2).mean()) + 1e-9
        relevance = np.maximum(np.sqrt(np.abs(slopes) / typical), 0.1)
        # a typical distance between paths is half a length scale: little is interaction until data
        # says so
        distance = np.sqrt(((measured.features * relevance) ** 2).sum(axis=1).mean()) + 1e-9
        centre = [np.log(relevance / distance / 2), slopes, np.log([0.3, 1.0, 1e-3])]
        # strong while there is little data: each hyperparameter is worth 3,000 / n measurements'
        # evidence
        strength = np.clip(3000 / len(measured.target), 1, 100)
        widths = [np.ones_like(slopes), np.abs(slopes) + typical]
        precision = [strength / np.concatenate(widths) ** 2, np.full(3, 4e-4)]
        n = len(slopes)
        bounds: list[tuple[float | None, float | None]] = [(-7, 4)] * n + [(None, None)] * n
        bounds += [(-9, 3), (-6, 5), (-14, 1)]
        return cls(np.concatenate(centre), np.concatenate(precision), bounds)


def _ridge(priors: Floats, measured: Measurements) -> Floats:
    """Slopes of the accuracy: a non-negative mix of the prior directions, plus what ridge
    regression adds.

    The ridge's strength is the one with the least leave-one-out error (in closed form).
    """
    features, target = measured.features, measured.target
    mix, _ = nnls(features @ priors, target)
    base: Floats = priors @ mix
    rest = target - features @ base
    left, sizes, right = np.linalg.svd(features, full_matrices=False)
    projected = left.T @ rest
    best, slopes = np.inf, base
    for strength in (0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0):
        kept = sizes**2 / (sizes**2 + strength)
        leverage = (left**2) @ kept + 1 / len(target)
        missed = (rest - left @ (kept * projected)) / np.maximum(1 - leverage, 1e-3)
        if (missed**2).mean() < best:
            best = float((missed**2).mean())
            slopes = base + right.T @ (sizes / (sizes**2 + strength) * projected)
    return slopes


def _objective(packed: Floats, measured: Measurements, prior: _Prior) -> tuple[float, Floats]:
    """The negative log posterior density, up to a constant, and its gradient."""
    hyper, features, target = _unpack(packed), measured.features, measured.target
    remainder, index = kernels(measured, hyper)
    factor, failed = lapack.dpotrf(covariance(measured, hyper, remainder, index), lower=1)
    if failed:
        return 1e10, np.zeros_like(packed)
    weights = cho_solve((factor, True), target, check_finite=False)
    away = packed - prior.centre
    value = target @ weights / 2 + np.log(np.diag(factor)).sum() + prior.precision @ away**2 / 2
    inverse = np.tril(lapack.dpotri(factor, lower=1)[0])
    inverse += np.tril(inverse, -1).T
    by_kernel = (inverse - np.outer(weights, weights)) / 2  # d value / d matrix
    by_remainder, by_index = by_kernel * remainder, by_kernel * index
    # sums over pairs of w_jk (x_j - x_k)²: 2 (Σ_j w_j. x_j² - x^T w x), for all features at once
    pairs = by_remainder.sum(axis=1) @ features**2
    pairs -= (features * (by_remainder @ features)).sum(axis=0)
    position = features @ hyper.direction
    turn = by_index.sum(axis=1) * position - by_index @ position
    gradient = np.concatenate(
        [
            -2 * pairs * hyper.relevance**2,
            -2 * (features.T @ turn),
            [
                by_remainder.sum(),
                by_index.sum(),
                hyper.noise * (np.diag(by_kernel) @ measured.spread),
            ],
        ]
    )
    return float(value), gradient + prior.precision * away


def _unpack(packed: Floats) -> Hyperparameters:
    n = (len(packed) - 3) // 2
    remainder, index, noise = np.exp(packed[2 * n :]).tolist()
    return Hyperparameters(np.exp(packed[:n]), packed[n : 2 * n], remainder, index, noise)
