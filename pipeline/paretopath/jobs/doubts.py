"""What the first scores of a search say against its weights or its images."""

import logging
from collections.abc import Sequence

from torch import Tensor

from paretopath.data.splits import AnySplit
from paretopath.quantities import percent
from paretopath.run import Parts
from paretopath.search.alike import FirstScores
from paretopath.search.record import Evaluated
from paretopath.tasks.task import Score

_ERRORS = 2.0
"""Standard errors by which the full path must be better than chance."""

_TOP_1 = "top-1"

_log = logging.getLogger(__name__)


class Doubts:
    """Warns once where scores are such that a search is in vain.

    Args:
        parts: of the search.
    """

    def __init__(self, parts: Parts) -> None:
        self.metric = parts.task.metric
        self.full = parts.searched.full
        self.first = FirstScores([self.full, parts.searched.smallest])
        is_top_1 = self.metric == _TOP_1 and parts.scoring is not None
        self.chance = commonest_share(parts.images.data.validation) if is_top_1 else None

    def hear(self, trials: Sequence[Evaluated]) -> None:
        """Takes trials that have finished."""
        for trial in trials:
            if trial.path == self.full and trial.score is not None:
                self._doubt_full(trial.score)
        if (found := self.first.alike(trials)) is not None:
            low, high = (percent(value) for value in found)
            _log.warning(
                "the full path, the smallest and those between them all score alike, %s %s: these "
                "validation images can't tell them apart, so this search can only minimise cost. "
                "If the full path should be better than that: are the weights trained for these "
                "classes, and are images prepared as they were in training?",
                self.metric,
                low if low == high else f"{low} to {high}",
            )

    def _doubt_full(self, score: Score) -> None:
        if self.chance is None or score.value > self.chance + _ERRORS * score.error:
            return
        _log.warning(
            "the full path's %s of %s is not clearly better than always naming the commonest "
            "class, %s: are the weights for these classes, in this order, and are images prepared "
            "as they were in training?",
            self.metric,
            percent(score.value, score.error),
            percent(self.chance),
        )


def commonest_share(split: AnySplit) -> float | None:
    """The share of images that are of the commonest class; None where targets are no classes."""
    targets = getattr(split, "targets", None)
    if not isinstance(targets, Tensor) or targets.ndim != 1 or targets.is_floating_point():
        return None
    return float(targets.bincount().max() / len(targets))
