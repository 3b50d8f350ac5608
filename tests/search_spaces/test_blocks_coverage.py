"""How much of timm can be searched: the smallest member of each family, without weights."""

import multiprocessing
from multiprocessing.queues import SimpleQueue

import numpy as np
import pytest
import timm
import torch
from torch import nn

from search_spaces.blocks.planning import plan
from search_spaces.blocks.spanning import find_streams

ENOUGH = 0.8
LIMIT_S = 300.0
"""For a family, making all its members included; some run step by step on the meta device."""

Look = tuple[str, int, int, int, str]


def on_meta(name: str) -> nn.Module:
    try:
        with torch.device("meta"):
            return timm.create_model(name).eval()
    except Exception:  # some read values while they are built
        return timm.create_model(name).eval().to("meta")


def smallest(family: str) -> tuple[str, nn.Module]:
    """The classifier with the fewest parameters of a file of timm's."""
    models = {name: on_meta(name) for name in timm.list_models(module=family)}
    sizes = {
        name: sum(parameter.numel() for parameter in model.parameters())
        for name, model in models.items()
        if not name.startswith("test_")
    }
    name = min(sizes, key=lambda name: sizes[name])
    return name, models[name]


def looked_at(model: nn.Module) -> tuple[int, int, int, str]:
    """Widths, skips and streams that a model has, and the first reason why it has no more."""
    images = torch.empty(2, *model.pretrained_cfg["input_size"], device="meta")
    try:
        found = plan(model, images)
        streams, _ = find_streams(model, images, found)
    except Exception as error:
        return 0, 0, 0, f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    widths = sum(bool(unit.groups) for unit in found.units)
    skips = sum(unit.adds for unit in found.units)
    why = next((f"{name}: {why}" for name, why in found.left.items()), "")
    return widths, skips, len(streams), why


def look(family: str, found: "SimpleQueue[Look]") -> None:
    torch.set_num_threads(1)
    name, model = smallest(family)
    found.put((name, *looked_at(model)))


def looked_at_in_time(family: str) -> Look:
    """The smallest member of a family, what it has, and the first reason for no more."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    found = context.SimpleQueue()
    process = context.Process(target=look, args=(family, found))
    process.start()
    process.join(LIMIT_S)
    if process.is_alive():
        process.kill()
        process.join()
        return "", 0, 0, 0, f"it takes more than {LIMIT_S:g} s"
    return found.get() if not found.empty() else ("", 0, 0, 0, "it can't be made")


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600)
def test_most_families_of_timm_can_be_searched() -> None:
    families = timm.list_modules()
    searched, some = 0, np.zeros(3, dtype=int)
    for family in families:
        name, *counts, why = looked_at_in_time(family)
        widths, skips, streams = counts
        searched += widths + skips > 0
        some += np.array(counts) > 0
        has = f"widths {widths:3}  skips {skips:3}  streams {streams:3}"
        print(f"{family:24} {name:34} {has}  {why[:150]}", flush=True)
    print("with widths, skips, streams:", *some.tolist())
    print(f"{searched} of {len(families)} families can be searched")
    assert searched >= ENOUGH * len(families)
