"""How sure an exit is of each image: from its logits, or from what the exits before it answered.

A measure maps logits (B, classes, …) and a memory to a confidence (B,), more is surer, and the
memory for the next exit. Where there are further dimensions (a map of classes), it is their mean.
What is not a number is not sure: its confidence is 0.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from paretopath.errors import InvalidValueError, nearest

Memory = tuple[Tensor, ...]
"""What exits tell the next one of each image that stays, batch first; nothing for most measures."""

Measure = Callable[[Tensor, Memory], tuple[Tensor, Memory]]


def maximum(logits: Tensor, memory: Memory = ()) -> tuple[Tensor, Memory]:
    """The highest class probability, in (0, 1] (BranchyNet and most after it; arXiv 1709.01686)."""
    return _mean(logits.softmax(1).amax(1)), memory


def margin(logits: Tensor, memory: Memory = ()) -> tuple[Tensor, Memory]:
    """The highest class probability less the second, in [0, 1]; of one class, 1."""
    best = logits.softmax(1).topk(min(2, logits.shape[1]), dim=1).values
    return _mean(2 * best[:, 0] - best.sum(1) if best.shape[1] == 2 else best[:, 0]), memory


def entropy(logits: Tensor, memory: Memory = ()) -> tuple[Tensor, Memory]:
    """1 less the entropy of the class probabilities, as a share of the largest that can be."""
    logs = logits.log_softmax(1)
    bits = -(logs.exp() * logs).sum(1)
    return _mean(1 - bits / torch.tensor(max(logits.shape[1], 2)).log()), memory


def agreement(logits: Tensor, memory: Memory = ()) -> tuple[Tensor, Memory]:
    """How many of the exits that were asked just before gave the same answer, 0 at the first.

    Zhou et al., "BERT Loses Patience" (arXiv 2006.04152); their patience is the threshold.
    """
    answers = logits.argmax(1)
    count = torch.zeros(len(logits), device=logits.device)
    if memory:
        before, so_far = memory
        same = (answers == before).flatten(1).all(1) if answers.ndim > 1 else answers == before
        count = torch.where(same, so_far + 1, count)
    broken = logits.flatten(1).isnan().any(1)
    return count.masked_fill(broken, 0.0), (answers, count)


MEASURES: Mapping[str, Measure] = {
    "maximum": maximum,
    "margin": margin,
    "entropy": entropy,
    "agreement": agreement,
}
"""By the names that policies keep."""


def measure_named(name: str) -> Measure:
    """A measure by its name.

    Raises:
        InvalidValueError: there is none.
    """
    if name not in MEASURES:
        raise InvalidValueError(f"there is no confidence {name!r}; {nearest(name, MEASURES)}")
    return MEASURES[name]


def kept(memory: Memory, stay: Tensor) -> Any:
    """A memory, or a state, of the images with these indices."""
    return tree_map(lambda tensor: tensor[stay], memory)


def _mean(confidence: Tensor) -> Tensor:
    flat = confidence.flatten(1).mean(1) if confidence.ndim > 1 else confidence
    return flat.nan_to_num(0.0)
