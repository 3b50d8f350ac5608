"""Configurations of specialised Once-For-All ResNet-50s, as their authors publish them.

A specialised network is published as ``net.config``, the numbers of channels of its layers
(``ResNets.config`` of ofa/imagenet_classification/networks/resnets.py), and ``run.config``, which
holds its image size. The decisions of the supernet follow from the channels.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from paretopath.errors import InvalidPathError
from paretopath.paths import Value
from search_spaces.ofa_resnet_units import (
    BASE_DEPTHS,
    EXPANDS,
    EXTRA_DEPTHS,
    WIDTHS,
    channels,
    middle_width,
)


def read_configuration(content: Mapping[str, Any]) -> dict[str, Value]:
    """The decisions of a published network.

    Args:
        content: of ``net.config``, with the ``image_size`` of ``run.config``.

    Raises:
        InvalidPathError: something is missing, or no sub-network of the space is like this.
    """
    if "image_size" not in content:
        raise InvalidPathError(
            "a published configuration must name its image_size (run.config holds it), "
            "but this one does not"
        )
    try:
        stem, blocks = list(content["input_stem"]), list(content["blocks"])
        decisions: dict[str, Value] = {
            "image_size": content["image_size"],
            "stem.depth": max(EXTRA_DEPTHS) if len(stem) == 3 else 0,
            "stem.mid_width": _width("stem.mid_width", stem[0]["out_channels"]),
            "stem.width": _width("stem.width", stem[-1]["out_channels"]),
        }
        stages = _stages(blocks)
        for stage, members in enumerate(stages):
            decisions |= _stage(stage, members)
    except (KeyError, TypeError, IndexError) as error:
        raise InvalidPathError(
            f"this is not a configuration of a Once-For-All ResNet-50: {error!r} where it holds "
            f"its layers"
        ) from error
    return decisions


def _stages(blocks: Sequence[Mapping[str, Any]]) -> list[list[Mapping[str, Any]]]:
    """The blocks of each stage: a stage's first block has a stride of 2, but for the first
    stage's.
    """
    stages: list[list[Mapping[str, Any]]] = [[]]
    for block in blocks:
        if block["stride"] == 2:
            stages.append([])
        stages[-1].append(block)
    if len(stages) != len(BASE_DEPTHS):
        raise InvalidPathError(
            f"a Once-For-All ResNet-50 has {len(BASE_DEPTHS)} stages, but this one {len(stages)}"
        )
    return stages


def _stage(stage: int, blocks: Sequence[Mapping[str, Any]]) -> dict[str, Value]:
    name, extra = f"stages.{stage}", len(blocks) - BASE_DEPTHS[stage]
    if extra not in EXTRA_DEPTHS:
        legal = ", ".join(str(BASE_DEPTHS[stage] + depth) for depth in EXTRA_DEPTHS)
        raise InvalidPathError(
            f"stage {stage} must have {legal} blocks, but this one has {len(blocks)}"
        )
    width = _width(f"{name}.width", blocks[0]["out_channels"])
    decisions: dict[str, Value] = {f"{name}.depth": extra, f"{name}.width": width}
    for i, block in enumerate(blocks):
        out = block["out_channels"]
        middles = {middle_width(out, ratio): ratio for ratio in EXPANDS}
        decisions[f"{name}.blocks.{i}.expand"] = _known(
            middles, block["mid_channels"], f"the middle of {name}.blocks.{i}"
        )
    return decisions


def _width(decision: str, found: int) -> float:
    # widths that round to the same channels are one network: the first of them names it
    by_channels = {channels(decision, {decision: width}): width for width in reversed(WIDTHS)}
    return _known(by_channels, found, decision)


def _known(values: Mapping[int, float], found: int, what: str) -> float:
    if found not in values:
        legal = ", ".join(map(str, sorted(values)))
        raise InvalidPathError(f"{what} must have {legal} channels, but got {found}")
    return values[found]
