"""Mean average precision: matches kept image by image, precision on any resample of the images.

The figures are those of COCO's evaluation (pycocotools, faster-coco-eval), to their last digits.
Those packages give one figure a run; here the matches of each image are kept, so that a standard
error, and racing, cost a few sorted sums more.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from paretopath.errors import InvalidValueError
from paretopath.tasks.detection.matching import OVERLAPS, SIZES, Matches, match
from paretopath.tasks.detection.objects import NOTHING, Detections, Objects, RawDetections
from paretopath.tasks.resampling import RESAMPLES, draw_resamples
from paretopath.tasks.task import Score

RECALLS = torch.from_numpy(np.linspace(0, 1, 101))
"""At which precision is read off."""


@dataclass(frozen=True)
class Summary:
    """The figures of COCO's table; NaN where there is no object that they are of.

    Attributes:
        ap: mean over classes and overlaps.
        ap50, ap75: at one overlap.
        by_size: ``small``, ``medium``, ``large``.
        by_class: of each class, its number from 0.
    """

    ap: float
    ap50: float
    ap75: float
    by_size: dict[str, float]
    by_class: dict[int, float]


class MeanAveragePrecision:
    """Keeps what the detections in each image came to."""

    def __init__(self) -> None:
        self._batches: list[tuple[Detections, Objects]] = []
        self._matches: list[Matches] = []
        self._images = 0
        self._finite = True

    def update(self, output: RawDetections, target: Objects) -> None:
        """Takes a batch of an exit's outputs and what was to be found."""
        found = output.predict()
        used = found.labels != NOTHING
        boxes = found.boxes.masked_fill(~used[..., None], 0).float().cpu()
        found = Detections(boxes, found.scores.float().cpu(), found.labels.cpu())
        if not (boxes.isfinite().all() and found.scores[used.cpu()].isfinite().all()):
            self._finite = False
        self._images += len(target)
        if self._finite:
            self._batches.append((found, target.to("cpu")))
            self._matches.append(match(*self._batches[-1]))

    def compute(self) -> Score:
        """mAP and its standard error, by the bootstrap over images.

        Raises:
            InvalidValueError: no images came, nothing is to be found in them, or a box or score was
                not finite.
        """
        self._require_figures()
        value = float(self.resampled(np.ones((1, self._images)))[0])
        if math.isnan(value):
            raise InvalidValueError("mAP needs at least one object to be found, but got none")
        error = 0.0
        if self._images > 1:
            draws = draw_resamples(self._images, seed=0, number=RESAMPLES)
            error = float(np.nanstd(self.resampled(draws), ddof=1))
        return Score(value, error, self._images)

    def resampled(self, draws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :class:`~paretopath.tasks.task.ResamplingScorer`."""
        return _mean(average_precision(self._matches, draws)).numpy()

    def by_class(self) -> dict[int, float | None]:
        """See :class:`~paretopath.tasks.task.ClasswiseScorer`."""
        once = average_precision(self._matches, np.ones((1, self._images)))[0].mean(1)
        return {
            number: None if math.isnan(value) else value
            for number, value in enumerate(once.tolist())
        }

    def summary(self) -> Summary:
        """All figures, by size and class.

        Raises:
            InvalidValueError: see :meth:`compute`.
        """
        self._require_figures()
        once = np.ones((1, self._images))
        whole = average_precision(self._matches, once)  # (1, classes, overlaps)
        by_size = {}
        for size in SIZES:
            if size != "all":
                matches = [match(*batch, size=size) for batch in self._batches]
                by_size[size] = float(_mean(average_precision(matches, once))[0])
        return Summary(
            float(_mean(whole)[0]),
            float(_mean(whole[:, :, :1])[0]),
            float(_mean(whole[:, :, 5:6])[0]),
            by_size,
            {number: float(row.mean()) for number, row in enumerate(whole[0])},
        )

    def _require_figures(self) -> None:
        if not self._images:
            raise InvalidValueError("mAP needs at least one image, but got none")
        if not self._finite:
            raise InvalidValueError(
                "the model's boxes and scores must be finite, but some are infinite or not a number"
            )


def average_precision(matches: Sequence[Matches], draws: npt.NDArray[np.float64]) -> Tensor:
    """Average precision of resamples of images: the mean of the highest precision from each of 101
    recalls on.

    Args:
        matches: of batches, in the order of their images.
        draws: (resamples, images) how often each resample holds each image.

    Returns:
        (resamples, classes, overlaps) float64, NaN for a class without objects.
    """
    starts = np.cumsum([0, *(len(part.objects) for part in matches)]).tolist()
    image = torch.cat([part.image + start for part, start in zip(matches, starts, strict=False)])
    label, score = (torch.cat([getattr(p, name) for p in matches]) for name in ("label", "score"))
    right, ignored = (
        torch.cat([getattr(p, name) for p in matches], 1) for name in ("right", "ignored")
    )
    classes = max(part.objects.shape[1] for part in matches)
    objects = torch.cat(
        [torch.nn.functional.pad(p.objects, (0, classes - p.objects.shape[1])) for p in matches]
    )
    weights = torch.from_numpy(np.asarray(draws, dtype=np.float64))
    totals = weights @ objects.double()  # (resamples, classes)
    found = torch.full((len(weights), classes, len(OVERLAPS)), math.nan, dtype=torch.float64)
    for number in range(classes):
        mine = (label == number).nonzero().flatten()
        mine = mine[score[mine].argsort(descending=True, stable=True)]
        if objects[:, number].any():
            found[:, number] = _of_class(
                weights[:, image[mine]], right[:, mine], ignored[:, mine], totals[:, number]
            )
    return found.masked_fill(totals[..., None] == 0, math.nan)


def _of_class(weights: Tensor, right: Tensor, ignored: Tensor, total: Tensor) -> Tensor:
    """(resamples, overlaps) average precision of one class.

    Args:
        weights: (resamples, D) of the images of its detections, the surest first.
        right, ignored: (overlaps, D).
        total: (resamples,) objects.
    """
    passed = weights.cumsum(1)
    found = []
    for hits, out in zip(right & ~ignored, ignored, strict=True):
        # precision rises at hits alone, so the highest from a recall on is that of a hit
        places = hits.nonzero().flatten()
        if len(places) == 0:
            found.append(total.new_zeros(len(total)))
            continue
        counted = (weights * ~out).cumsum(1) if out.any() else passed
        hit = weights[:, places].cumsum(1)
        precision = hit / counted[:, places].clamp(min=1e-12)
        best = precision.flip(1).cummax(1)[0].flip(1)
        # a recall is reached where hit / total is at least it, by the same division as COCO's
        reached = torch.searchsorted(
            hit / total.clamp(min=1e-12)[:, None], RECALLS.repeat(len(total), 1)
        )
        read = best.gather(1, reached.clamp(max=len(places) - 1))
        found.append(torch.where(reached < len(places), read, 0.0).mean(1))
    return torch.stack(found, 1)


def _mean(precision: Tensor) -> Tensor:
    """(resamples,) mean over the classes that have objects, and overlaps."""
    return precision.flatten(1).nanmean(1)
