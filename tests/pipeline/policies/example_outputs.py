"""Outputs of exits made up for tests: later exits know more, and know when they do."""

import numpy as np
import torch

from paretopath.policies.costs import ExitCosts
from paretopath.policies.outputs import ExitOutputs


def made_up(
    images: int, *, exits: int = 4, classes: int = 5, seed: int = 0, lead: float = 1.0
) -> ExitOutputs:
    """Logits of some exits: noise, and a lead of the right class that grows with depth and with how
    easy an image is.

    Args:
        images: how many.
        exits: how many.
        classes: how many.
        seed: of everything.
        lead: of the right class at the last exit.
    """
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(0, classes, (images,), generator=generator)
    ease = 4 * torch.rand(images, generator=generator)
    logits = torch.randn(exits, images, classes, generator=generator)
    depth = torch.arange(1, exits + 1) / exits
    leads = lead * depth[:, None] * ease
    logits[:, torch.arange(images), targets] += leads
    right = (logits.argmax(-1) == targets).numpy()
    return ExitOutputs(tuple(f"exits.{e + 1}" for e in range(exits)), logits, targets, right)


def block_costs(exits: int = 4) -> ExitCosts:
    """Each exit lies ten energy behind the one before and costs one; parameters likewise."""
    body = 10.0 * np.arange(1, exits + 1)
    return ExitCosts(
        {"energy_mj": body, "macs": body, "params": body, "activation_bytes": body},
        {
            name: np.ones(exits) * (50 if name == "activation_bytes" else 1)
            for name in ("energy_mj", "macs", "params", "activation_bytes")
        },
    )
