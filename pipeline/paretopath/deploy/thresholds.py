"""One threshold for all exits of a path, chosen by hand: what each would give on labelled data."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paretopath.deploy.exits import Confidence
from paretopath.elastic import Step
from paretopath.elastic.exits import outputs_of_exits


@dataclass(frozen=True)
class EarlyExit:
    """How a threshold did on labelled data.

    Attributes:
        threshold: images leave at the first exit whose confidence reaches it.
        accuracy: top-1, in [0, 1].
        mean_exit: mean position of the exit taken, 0 for the first.
        shares: share of the images that left at each exit, in order.
    """

    threshold: float
    accuracy: float
    mean_exit: float
    shares: tuple[float, ...]


def sweep(
    steps: Sequence[Step],
    batches: Iterable[tuple[Tensor, Tensor]],
    thresholds: Sequence[float],
    *,
    confidence: Confidence,
) -> list[EarlyExit]:
    """What each threshold would give on labelled batches, from one pass through all exits.

    Args:
        steps: of :func:`steps_with_exits`.
        batches: (images, labels) pairs, on the steps' device.
        thresholds: in (0, 1].
        confidence: see :func:`leave_early`.
    """
    sure, right = [], []  # per batch: (n_exits, B)
    for images, labels in batches:
        outs = outputs_of_exits(steps, images)
        sure.append(torch.stack([confidence(out) for out in outs]))
        right.append(torch.stack([out.argmax(-1) == labels for out in outs]))
    confidences, correct = torch.cat(sure, 1), torch.cat(right, 1)
    return [_statistics(threshold, confidences, correct) for threshold in thresholds]


def _statistics(threshold: float, confidence: Tensor, correct: Tensor) -> EarlyExit:
    """Statistics of one threshold from (n_exits, n) confidences and correctness."""
    leaves = confidence >= threshold
    leaves[-1] = True
    first = leaves.int().argmax(0)  # the first exit that is sure
    shares = torch.bincount(first, minlength=len(leaves)).double() / leaves.shape[1]
    accuracy = correct.gather(0, first[None]).double().mean()
    return EarlyExit(
        threshold, accuracy.item(), first.double().mean().item(), tuple(shares.tolist())
    )


def choose_threshold(sweep: Sequence[EarlyExit], *, max_loss: float) -> EarlyExit:
    """The lowest threshold that loses at most ``max_loss`` of the accuracy of never leaving early.

    Args:
        sweep: from :meth:`~paretopath.deploy.dynamic_model.DynamicModel.sweep_thresholds`, the
            threshold 1.0 among them.
        max_loss: in [0, 1].
    """
    patient = max(sweep, key=lambda result: result.threshold)
    allowed = [result for result in sweep if result.accuracy >= patient.accuracy - max_loss]
    return min(allowed, key=lambda result: result.threshold)
