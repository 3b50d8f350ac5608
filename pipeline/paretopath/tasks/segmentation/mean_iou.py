"""Mean IoU: pixels counted image by image."""

import math

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from paretopath.errors import InvalidValueError
from paretopath.tasks.resampling import RESAMPLES, draw_resamples
from paretopath.tasks.segmentation.windows import SlidingWindow
from paretopath.tasks.task import Score

Counts = npt.NDArray[np.int64]


class MeanIoU:
    """Counts pixels image by image: what mean IoU, its error and racing need.

    Args:
        ignore_index: pixels of this class count nowhere.
        window: outputs are those of windows; see :class:`Segmentation`.
    """

    def __init__(self, *, ignore_index: int = 255, window: SlidingWindow | None = None) -> None:
        self.ignore_index = ignore_index
        self.window = window
        self._counts: list[Tensor] = []
        self._finite: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes logits (B, classes, y, x), or (B * windows, …), and masks (B, Y, X)."""
        finite = torch.isfinite(output).all()
        self._finite = finite if self._finite is None else self._finite & finite
        target = target.to(output.device)
        logits = output.float()
        if self.window is not None:
            logits = self.window.join(logits, (target.shape[1], target.shape[2]))
        predicted = resized(logits, target).argmax(1)
        self._counts.append(count_pixels(predicted, target, output.shape[1], self.ignore_index))

    @property
    def counts(self) -> Counts:
        """(images, 3, classes): right, predicted and true pixels of each class, per image."""
        if not self._counts:
            raise InvalidValueError("mIoU needs at least one image, but got none")
        return torch.cat(self._counts).cpu().numpy()

    @property
    def counted(self) -> list[int]:
        """The classes that the mean is over: those that occur, or are predicted, somewhere."""
        right, predicted, true = self.counts.sum(0)
        classes: list[int] = np.flatnonzero(predicted + true - right).tolist()
        return classes

    def resampled(self, draws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :class:`~paretopath.tasks.task.ResamplingScorer`."""
        return resampled_iou(self.counts, draws)

    def pixel_accuracy(self) -> float:
        """The share of pixels that are right, in [0, 1]."""
        right, _, true = self.counts.sum(0).sum(1)
        return float(right) / max(1.0, float(true))

    def compute(self) -> Score:
        """Mean IoU over the classes that occur, and its standard error by :func:`bootstrap_error`.

        Raises:
            InvalidValueError: no images came, no pixel counts, or a logit was not finite.
        """
        counts = self.counts
        if self._finite is None or not bool(self._finite):
            raise InvalidValueError(
                "the model's logits must be finite, but some are infinite or not a number"
            )
        value = float(mean_iou(counts.sum(0)))
        if math.isnan(value):
            raise InvalidValueError("mIoU needs at least one pixel with a class, but got none")
        return Score(value, bootstrap_error(counts), len(counts))


def resized(logits: Tensor, target: Tensor) -> Tensor:
    """Logits (B, classes, y, x) brought to the size of masks (B, Y, X), bilinearly."""
    size = target.shape[-2:]
    if logits.shape[-2:] == size:
        return logits
    return F.interpolate(logits, size=size, mode="bilinear", align_corners=False)


def count_pixels(predicted: Tensor, target: Tensor, classes: int, ignore_index: int) -> Tensor:
    """Right, predicted and true pixels of each class.

    Args:
        predicted, target: (B, Y, X) classes from 0.
        classes: how many there are.
        ignore_index: pixels whose target is this one count nowhere.

    Returns:
        (B, 3, classes) int64.
    """
    images = torch.arange(len(target), device=target.device)[:, None, None].expand_as(target)
    counted = target != ignore_index

    def count(labels: Tensor, where: Tensor) -> Tensor:
        places = images[where] * classes + labels[where]
        return torch.bincount(places, minlength=len(target) * classes).view(-1, classes)

    right = count(target, counted & (predicted == target))
    return torch.stack([right, count(predicted, counted), count(target, counted)], dim=1)


def mean_iou(counts: npt.NDArray[np.int64 | np.float64]) -> npt.NDArray[np.float64]:
    """Mean over classes of right / (predicted + true - right), over those that occur.

    Args:
        counts: (…, 3, classes): right, predicted, true pixels.

    Returns:
        (…,) in [0, 1]; NaN where no class occurs.
    """
    right, predicted, true = np.moveaxis(np.asarray(counts, dtype=np.float64), -2, 0)
    union = predicted + true - right
    occurs = union > 0
    iou = np.divide(right, union, out=np.zeros_like(right), where=occurs)
    number = occurs.sum(-1)
    mean: npt.NDArray[np.float64] = np.divide(
        iou.sum(-1), number, out=np.full(number.shape, np.nan), where=number > 0
    )
    return mean


def bootstrap_error(counts: Counts, *, resamples: int = RESAMPLES, seed: int = 0) -> float:
    """The standard error of mean IoU, by the bootstrap over images.

    Images are drawn with replacement, as many as there are (Efron, "Bootstrap methods", Annals of
    Statistics 7(1), 1979); the deviation of what comes out estimates that of another sample of
    images.

    Args:
        counts: (images, 3, classes).
        resamples: at least 2.
        seed: of the draws.
    """
    images = len(counts)
    if images < 2:
        return 0.0
    values = resampled_iou(counts, draw_resamples(images, seed=seed, number=resamples))
    return float(np.nanstd(values, ddof=1)) if np.isfinite(values).sum() > 1 else 0.0


def resampled_iou(counts: Counts, draws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Mean IoU of resamples of the images.

    Args:
        counts: (images, 3, classes).
        draws: (resamples, images) how often each resample holds each image.
    """
    sums = draws @ counts.reshape(len(counts), -1).astype(np.float64)
    return mean_iou(sums.reshape(len(draws), *counts.shape[1:]))
