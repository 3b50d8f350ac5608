"""A model of accuracy over decisions: a Gaussian process that learns which decisions matter, and
how much.

Paths become thermometer-coded features (each step of a decision's value up is one), and the
accuracy of a path x is

    y(x) = g(u · x) + r(x) + noise,

a smooth function g of one learned direction plus a remainder r, both Gaussian processes:

    k(x, x') = a_g exp(-(u·x - u·x')² / 2) + a_r exp(-Σ s_i² (x_i - x'_i)² / 2) + const.

The first term is a single-index model (Choi, Shi and Wang, "A Gaussian process regression approach
to a single-index model", 2011): most of what fuller values bring is a saturating function of one
sum. The second, with a relevance for each feature, is the interaction of any number of decisions.
The hyperparameters (u, s, amplitudes, noise) maximise the marginal likelihood (Rasmussen and
Williams, "Gaussian Processes for Machine Learning", 2006, eq. 5.8 and 5.9); see
:mod:`paretopath.search.hyperparameters`. A path that racing stopped is known less well than the
others: what its error exceeds theirs by is noise of its own, with a known variance.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
from scipy.linalg import cho_solve, solve_triangular

from paretopath.paths import IndexMatrix, SearchSpace

Floats = npt.NDArray[np.float64]
Singles = npt.NDArray[np.float32]

_CONSTANT = 4.0  # variance of the mean, in units of the accuracies' variance
_JITTER = 1e-6  # keeps the kernel's matrix positive definite in float64
_ROWS = 1024  # paths predicted at once, so that the kernel's block stays in the cache


class Encoding:
    """Thermometer code of index matrices: one feature for each step of a decision to a fuller
    value.

    Absent decisions have no steps. Where a decision can be absent, its presence is a feature too.
    Features that are constant, or the same as another one, are left out.

    Args:
        space: whose paths.
        cost_of: the objective cost of an index matrix, to know what each step costs.
    """

    def __init__(self, space: SearchSpace, cost_of: Callable[[IndexMatrix], Floats]) -> None:
        probe = space.sample_encoded(np.random.default_rng(0), 4096)
        columns, thresholds, seen = [], [], set()
        for column, decision in enumerate(space.decisions):
            indices = [decision.index(value) for value in decision.distinct]
            for threshold in indices if decision.requires else indices[1:]:
                reached = probe[:, column] >= threshold
                if reached.any() and not reached.all() and reached.tobytes() not in seen:
                    seen.add(reached.tobytes())
                    columns.append(column)
                    thresholds.append(threshold)
        self._columns = np.array(columns, dtype=np.intp)
        self._thresholds = np.array(thresholds, dtype=np.int16)
        self.priors = self._directions(probe, cost_of(probe))

    def __len__(self) -> int:
        return len(self._columns)

    def __call__(self, matrix: IndexMatrix) -> Singles:
        """(n_paths, n_decisions) value indices -> (n_paths, n_features) zeros and ones."""
        return (matrix[:, self._columns] >= self._thresholds).astype(np.float32)

    def _directions(self, probe: IndexMatrix, cost: Floats) -> Floats:
        """Two guesses of the direction in which accuracy rises, (n_features, 2).

        In proportion to what a step adds to the logarithm of the cost, and the same for each
        decision as a whole.
        """
        steps = np.bincount(self._columns, minlength=probe.shape[1])
        equal = 1 / steps[self._columns]
        known = np.isfinite(cost) & (cost > 0)
        features = np.column_stack([self(probe[known]), np.ones(known.sum())])
        slopes = np.linalg.lstsq(features, np.log(cost[known]), rcond=None)[0][:-1]
        return np.column_stack([np.maximum(slopes, 0), equal])


@dataclass(frozen=True)
class Hyperparameters:
    """What the kernel has learned.

    Attributes:
        relevance: (n_features,) s: inverse length scales of the remainder.
        direction: (n_features,) u.
        remainder: a_r, in units of the accuracies' variance.
        index: a_g, in the same unit.
        noise: variance of a measurement with an average error, in the same unit.
    """

    relevance: Floats
    direction: Floats
    remainder: float
    index: float
    noise: float


@dataclass(frozen=True)
class Measurements:
    """Evaluated paths as the model sees them.

    Attributes:
        features: (n, n_features), centred.
        target: (n,) accuracies, standardised.
        spread: (n,) relative variances of their errors, 1 on average; all 1 where errors are not
            known.
        extra: (n,) known variances of what partial measurements miss, in units of the accuracies'
            variance; 0 for the others.
        centre: (n_features,) that was subtracted.
        mean, scale: of the accuracies.
    """

    features: Floats
    target: Floats
    spread: Floats
    extra: Floats
    centre: Floats
    mean: float
    scale: float

    @classmethod
    def of(
        cls,
        encoding: Encoding,
        matrix: IndexMatrix,
        accuracy: Floats,
        error: Floats,
        partial: npt.NDArray[np.bool_] | None = None,
    ) -> "Measurements":
        """Standardises evaluated paths.

        The errors tell only how noisy one measurement is against another; how noisy they are in all
        is fitted, since paths measured on the same images share most of their error. What the error
        of a partial measurement has beyond a whole one's is its own, and known.

        Args:
            encoding: of the paths.
            matrix: (n, n_decisions) value indices.
            accuracy: (n,).
            error: (n,) standard errors of the accuracies.
            partial: (n,) which paths did not see all images; None: none.
        """
        features = encoding(matrix).astype(float)
        centre = features.mean(axis=0)
        mean, scale = float(accuracy.mean()), max(float(accuracy.std()), 1e-9)
        variance = error**2
        whole = np.ones(len(error), dtype=bool) if partial is None else ~partial
        spread, extra = np.ones(len(accuracy)), np.zeros(len(accuracy))
        noisy = whole & (variance > 0)
        typical = float(variance[noisy].mean()) if noisy.any() else 0.0
        if typical > 0:
            spread[whole] = np.clip(variance[whole] / typical, 1e-2, None)
        extra[~whole] = np.maximum(variance[~whole] - typical, 0) / scale**2
        target = (accuracy - mean) / scale
        return cls(features - centre, target, spread, extra, centre, mean, scale)

    def noise(self, level: float) -> Floats:
        """(n,) variances of the noise where an average error has this one."""
        return level * self.spread + self.extra

    def where(self, rows: npt.NDArray[np.intp]) -> "Measurements":
        """Some of the paths, standardised as before."""
        return replace(
            self,
            features=self.features[rows],
            target=self.target[rows],
            spread=self.spread[rows],
            extra=self.extra[rows],
        )


class AccuracyModel:
    """The posterior of the Gaussian process.

    Args:
        encoding: of the paths.
        measured: what was evaluated.
        hyper: the kernel's hyperparameters.
    """

    def __init__(self, encoding: Encoding, measured: Measurements, hyper: Hyperparameters) -> None:
        self._encoding, self._measured, self._hyper = encoding, measured, hyper
        self._factor = _factor(covariance(measured, hyper, *kernels(measured, hyper)))
        self._weights = cho_solve((self._factor, True), measured.target)
        self._prepare()

    def mean(self, matrix: IndexMatrix) -> Floats:
        """The expected accuracy of each path of an index matrix."""
        result = np.empty(len(matrix))
        for start in range(0, len(matrix), _ROWS):
            remainder, position = self._remainder(matrix[start : start + _ROWS])
            result[start : start + _ROWS] = remainder @ self._weights32
            result[start : start + _ROWS] += np.interp(position, self._grid, self._curve)
        return self._measured.mean + self._measured.scale * result

    def deviation(self, matrix: IndexMatrix) -> Floats:
        """How unsure the model is of each path's accuracy: a standard deviation, without noise."""
        hyper = self._hyper
        result = np.empty(len(matrix))
        for start in range(0, len(matrix), _ROWS):
            kernel, position = self._remainder(matrix[start : start + _ROWS])
            cross = kernel + _gaussian(position[:, None] - self._positions, hyper.index) + _CONSTANT
            solved = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
            known = (solved**2).sum(axis=0)
            result[start : start + _ROWS] = hyper.remainder + hyper.index + _CONSTANT - known
        return self._measured.scale * np.sqrt(np.maximum(result, 0))

    def _prepare(self) -> None:
        """What every prediction needs: the remainder's kernel as one product, g as a table."""
        measured, hyper = self._measured, self._hyper
        scaled = measured.features * hyper.relevance
        half = (scaled**2).sum(axis=1) / 2
        # exp(x·x' - |x|²/2 - |x'|²/2 + log a) by one matrix product of extended vectors
        extended = [scaled, np.log(hyper.remainder) - half[:, None], np.ones((len(half), 1))]
        self._right = np.concatenate(extended, axis=1).T.astype(np.float32)
        self._weights32 = self._weights.astype(np.float32)
        self._positions = measured.features @ hyper.direction
        # g is smooth on the scale of 1: a table of 4,000 entries interpolates it to 1e-5
        low, high = self._positions.min() - 4, self._positions.max() + 4
        self._grid = np.linspace(low, high, 4097)
        bumps = _gaussian(self._grid[:, None] - self._positions, hyper.index)
        self._curve = bumps @ self._weights + _CONSTANT * self._weights.sum()

    def _remainder(self, matrix: IndexMatrix) -> tuple[Singles, Singles]:
        """The remainder's kernel against the measured paths (n, n_measured), and u · x (n,)."""
        features = self._encoding(matrix) - self._measured.centre.astype(np.float32)
        scaled = features * self._hyper.relevance.astype(np.float32)
        half = (scaled**2).sum(axis=1, keepdims=True) / -2
        left = np.concatenate([scaled, np.ones_like(half), half], axis=1)
        kernel: Singles = left @ self._right
        return np.exp(kernel, out=kernel), features @ self._hyper.direction.astype(np.float32)


def kernels(measured: Measurements, hyper: Hyperparameters) -> tuple[Floats, Floats]:
    """The two kernels between all pairs of measured paths, (n, n) each: remainder, index."""
    scaled = measured.features * hyper.relevance
    half = (scaled**2).sum(axis=1) / 2
    exponent = np.minimum(scaled @ scaled.T - half[:, None] - half, 0)
    position = measured.features @ hyper.direction
    return (
        hyper.remainder * np.exp(exponent),
        _gaussian(position[:, None] - position, hyper.index),
    )


def covariance(
    measured: Measurements, hyper: Hyperparameters, remainder: Floats, index: Floats
) -> Floats:
    """(n, n) of what was measured, noise included, from its two kernels."""
    matrix = remainder + index + _CONSTANT
    matrix[np.diag_indices_from(matrix)] += measured.noise(hyper.noise) + _JITTER
    return matrix


def _factor(matrix: Floats) -> Floats:
    """The Cholesky factor, with more jitter where rounding leaves the matrix indefinite."""
    jitter = _JITTER * float(np.diag(matrix).mean())
    while True:
        try:
            return np.linalg.cholesky(matrix).astype(np.float64, copy=False)
        except np.linalg.LinAlgError:
            matrix = matrix + jitter * np.eye(len(matrix))
            jitter *= 10


def _gaussian(difference: npt.NDArray[np.floating], amplitude: float) -> Floats:
    result: Floats = amplitude * np.exp(difference**2 / -2)
    return result
