"""Leaving early: each image goes at the first exit that is sure of it, the rest of the batch on."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paretopath.elastic import State, Step
from paretopath.front import Policy
from paretopath.policies.confidence import Memory, kept, measure_named

Confidence = Callable[[Any], Tensor]

Rule = Callable[[int, Any, Memory], tuple[Tensor, Memory]]
"""Who leaves, (B,) bool, at the exit of a number from 0, by its output and what the exits before it
left in memory of these images; and the memory for the next exit.
"""


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


def at_threshold(confidence: Confidence, threshold: float) -> Rule:
    """Images leave where the confidence in an exit's output, (B,), reaches a threshold."""
    return lambda number, output, memory: (confidence(output) >= threshold, memory)


def by_policy(policy: Policy) -> Rule:
    """Images leave as a policy says; exits are numbered as the policy names them."""
    measure = measure_named(policy.confidence)

    def rule(number: int, output: Any, memory: Memory) -> tuple[Tensor, Memory]:
        confidence, memory = measure(output.float() / policy.temperatures[number], memory)
        return confidence >= policy.thresholds[number], memory

    return rule


def leave_early(steps: Sequence[Step], images: Tensor, rule: Rule) -> tuple[Tensor, Tensor]:
    """Runs steps over images (B, C, Y, X); who is sure at an exit leaves the batch, which shrinks.

    Args:
        steps: of :func:`~paretopath.elastic.exits.steps_with_exits`.
        images: at least one.
        rule: who leaves at the exits before the last.

    Returns:
        outputs (B, …), and the number of the exit that each image took (B,), int64, 0 for the first
        of these steps.
    """
    waiting = torch.arange(len(images), device=images.device)
    taken = torch.empty_like(waiting)
    outputs: Tensor | None = None
    state: State = images
    memory: Memory = ()
    number = 0
    for step in steps[:-1]:
        out = step(state)
        if not step.unit.is_exit:
            state = out
            continue
        outputs = out.new_empty(len(images), *out.shape[1:]) if outputs is None else outputs
        sure, memory = rule(number, out, memory)
        leave, stay = sure.nonzero().flatten(), (~sure).nonzero().flatten()
        if len(leave):
            outputs[waiting[leave]], taken[waiting[leave]] = out[leave], number
            waiting, state, memory = waiting[stay], kept(state, stay), kept(memory, stay)
        number += 1
        if len(stay) == 0:
            return outputs, taken
    out = steps[-1](state)
    if outputs is None:
        return out, taken.fill_(number)
    outputs[waiting], taken[waiting] = out, number
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
