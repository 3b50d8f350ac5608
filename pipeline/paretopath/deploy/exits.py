"""Leaving early: each image goes at the first exit that is sure of it, the rest of the batch on."""

from collections.abc import Callable, Sequence
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
