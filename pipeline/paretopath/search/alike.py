"""Whether accuracies tell paths apart at all."""

from collections.abc import Iterable, Sequence

import numpy as np
from scipy.special import chdtri

from paretopath.paths import ExecutionPath
from paretopath.search.record import Evaluated
from paretopath.tasks.task import Score

FEWEST = 6
"""Scores before anything is said: the first paths of a search reach from the full to the
smallest."""

_CONFIDENCE = 0.95


def all_alike(scores: Sequence[Score]) -> bool:
    """Whether accuracies differ by no more than chance: at least :data:`FEWEST`, all the same.

    The test of homogeneity (Cochran, "The combination of estimates from different experiments",
    Biometrics 10(1), 1954). Paths see the same images, so chance explains even less than it says.
    """
    if len(scores) < FEWEST:
        return False
    values = np.array([score.value for score in scores])
    if np.ptp(values) == 0:
        return True
    errors = np.array([score.error for score in scores])
    if not (errors > 0).all():
        return False
    weights = errors**-2.0
    mean = np.average(values, weights=weights)
    statistic = float((weights * (values - mean) ** 2).sum())
    return bool(statistic <= chdtri(len(scores) - 1, 1 - _CONFIDENCE))


class FirstScores:
    """The scores of a search's first paths, from the full one to the smallest.

    Args:
        ends: the full and the smallest path: without both, scores may well be alike.
    """

    def __init__(self, ends: Sequence[ExecutionPath]) -> None:
        self._missing = set(ends)
        self._scores: list[Score] = []
        self._judged = False

    def alike(self, trials: Iterable[Evaluated]) -> tuple[float, float] | None:
        """Takes trials that have finished. The lowest and the highest accuracy if all are alike,
        once; None before that can be told, and afterwards.
        """
        for trial in trials:
            if trial.score is not None:
                self._missing.discard(trial.path)
                self._scores.append(trial.score)
        if self._judged or self._missing or len(self._scores) < FEWEST:
            return None
        self._judged = True
        values = [score.value for score in self._scores]
        return (min(values), max(values)) if all_alike(self._scores) else None
