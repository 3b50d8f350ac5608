"""Dominance and hypervolume of (accuracy up, cost down), on top of moocore."""

from collections.abc import Sequence

import moocore
import numpy as np
import numpy.typing as npt

from paretopath.errors import InvalidValueError

Floats = npt.NDArray[np.float64]


def pareto_front(accuracy: npt.ArrayLike, cost: npt.ArrayLike) -> npt.NDArray[np.bool_]:
    """Which points no other point dominates.

    A point dominates another if it is at least as accurate and at most as costly, and one of the
    two strictly. Of points equal in both, the first one stays.

    Args:
        accuracy: shape (n,), more is better.
        cost: shape (n,), less is better, any unit.

    Returns:
        A mask of shape (n,).

    Raises:
        InvalidValueError: the shapes differ, or a number is not finite.
    """
    points = _points(accuracy, cost)
    mask: npt.NDArray[np.bool_] = moocore.is_nondominated(points, maximise=[True, False])
    return mask


def hypervolume(
    accuracy: npt.ArrayLike, cost: npt.ArrayLike, reference: tuple[float, float]
) -> float:
    """The area that a set of points dominates, up to a reference point.

    With the reference (0, c), the hypervolume divided by c is the mean, over all budgets from 0 to
    c, of the best accuracy that fits the budget.

    Args:
        accuracy: shape (n,), more is better.
        cost: shape (n,), less is better.
        reference: (accuracy, cost); points that are not better in both add nothing.

    Returns:
        Accuracy times the unit of cost; 0 for no points.

    Raises:
        InvalidValueError: the shapes differ, or a number is not finite.
    """
    points, bound = _points(accuracy, cost), _reference(reference)
    return float(moocore.hypervolume(points, ref=bound, maximise=[True, False]))


class Archive:
    """The non-dominated points so far, and their hypervolume: for points that come one by one.

    Args:
        reference: as for :func:`hypervolume`.

    Raises:
        InvalidValueError: the reference is not finite.
    """

    def __init__(self, reference: tuple[float, float]) -> None:
        self._reference = _reference(reference)
        self._points = np.empty((0, 2))
        self.hypervolume = 0.0

    def add(self, accuracy: float, cost: float) -> float:
        """Takes a point; returns the hypervolume with it.

        Raises:
            InvalidValueError: a number is not finite.
        """
        point = _points([accuracy], [cost])
        better = (self._points[:, 0] >= accuracy) & (self._points[:, 1] <= cost)
        if not better.any():
            points = np.concatenate([self._points, point])
            self._points = points[moocore.is_nondominated(points, maximise=[True, False])]
            self.hypervolume = float(
                moocore.hypervolume(self._points, ref=self._reference, maximise=[True, False])
            )
        return self.hypervolume


def hypervolume_history(
    accuracy: npt.ArrayLike, cost: npt.ArrayLike, reference: tuple[float, float]
) -> Floats:
    """The hypervolume of the first 1, 2, … n points.

    Args:
        accuracy: shape (n,), in the order of the search; NaN for a trial that gave no accuracy.
        cost: shape (n,); NaN as for accuracy.
        reference: as for :func:`hypervolume`.

    Returns:
        Shape (n,), never falling.

    Raises:
        InvalidValueError: the shapes differ, a number is infinite, or the reference is not finite.
    """
    archive = Archive(reference)
    columns = _columns(accuracy, cost)
    history = np.zeros(len(columns))
    for i, point in enumerate(columns):
        known = not np.isnan(point).any()
        history[i] = archive.add(*point) if known else archive.hypervolume
    return history


def _reference(reference: Sequence[float]) -> Floats:
    bound = np.asarray(reference, dtype=np.float64)
    if bound.shape != (2,) or not np.isfinite(bound).all():
        raise InvalidValueError(
            f"a reference point must be a finite (accuracy, cost), but got {tuple(reference)}"
        )
    return bound


def _columns(accuracy: npt.ArrayLike, cost: npt.ArrayLike) -> Floats:
    """Two sequences as an (n, 2) matrix."""
    first, second = np.asarray(accuracy, np.float64), np.asarray(cost, np.float64)
    if first.ndim != 1 or first.shape != second.shape:
        raise InvalidValueError(
            f"accuracy and cost must be of one shape (n,), but got {first.shape} and {second.shape}"
        )
    return np.stack([first, second], axis=1)


def _points(accuracy: npt.ArrayLike, cost: npt.ArrayLike) -> Floats:
    """As :func:`_columns`, but refuses what is not finite.

    A NaN compares as neither better nor worse: such a row would stay on the front, or push others
    off.
    """
    points = _columns(accuracy, cost)
    bad = np.argwhere(~np.isfinite(points))
    if len(bad):
        row, column = bad[0]
        raise InvalidValueError(
            f"accuracies and costs must be finite to be compared, but "
            f"{('accuracy', 'cost')[column]}[{row}] is {points[row, column]}"
        )
    return points
