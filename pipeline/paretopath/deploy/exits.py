"""Leaving early: each image goes at the first exit that is sure of it, the rest of the batch on."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from paretopath.elastic import ElasticModel, State, Step
from paretopath.elastic.exits import exits_on_the_way
from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import Value

Confidence = Callable[[Any], Tensor]


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


def steps_with_exits(
    model: ElasticModel, path: Mapping[str, Value], asked: Collection[str] | None = None
) -> tuple[Step, ...]:
    """The steps of a path with the exits on its way put in; its own exit is the last.

    Args:
        model: whose steps.
        path: any path of its space.
        asked: names of the exits to put in; all that lie on the way if None.

    Raises:
        InvalidValueError: the path ends at no exit, or one that is asked is not on its way.
    """
    path = model.space.canonical(path)
    exits = exits_on_the_way(model, path)
    if not exits or exits[-1].path != path:
        raise InvalidValueError("leaving early needs a model with exits, but this one has none")
    names = [found.step.unit.name for found in exits]
    for name in asked or ():
        if name not in names:
            raise InvalidValueError(
                f"exits to ask must lie on the way of the path, but {name!r} does not; "
                f"{nearest(name, names)}"
            )
    steps = list(model.steps(path))
    for found in reversed(exits[:-1]):
        if asked is None or found.step.unit.name in asked:
            steps.insert(found.after, found.step)
    return tuple(steps)


def leave_early(
    steps: Sequence[Step], images: Tensor, *, confidence: Confidence, threshold: float
) -> tuple[Tensor, Tensor]:
    """Runs steps over images (B, C, Y, X); who is sure at an exit leaves the batch, which shrinks.

    Args:
        steps: of :func:`steps_with_exits`.
        images: at least one.
        confidence: of an exit's output, (B,) in [0, 1].
        threshold: that it must reach.

    Returns:
        outputs (B, …), and the number of the exit that each image took (B,), int64, 0 for the first
        of these steps.
    """
    waiting = torch.arange(len(images), device=images.device)
    taken = torch.empty_like(waiting)
    outputs: Tensor | None = None
    state: State = images
    number = 0
    for step in steps:
        out = step(state)
        if not step.unit.is_exit:
            state = out
            continue
        outputs = out.new_empty(len(images), *out.shape[1:]) if outputs is None else outputs
        sure = confidence(out) >= threshold
        if step is steps[-1]:
            sure = torch.ones_like(sure)
        leave, stay = sure.nonzero().flatten(), (~sure).nonzero().flatten()
        outputs[waiting[leave]], taken[waiting[leave]] = out[leave], number
        number += 1
        if len(stay) == 0:
            break
        if len(leave):
            waiting = waiting[stay]
            state = tree_map(lambda tensor, stay=stay: tensor[stay], state)
    assert outputs is not None
    return outputs, taken


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
        state: State = images
        outs = []
        for step in steps:
            out = step(state)
            if step.unit.is_exit:
                outs.append(out)
            else:
                state = out
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
