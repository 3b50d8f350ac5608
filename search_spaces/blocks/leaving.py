"""Exits behind a model's stages: where heads can be built, and on what."""

from collections.abc import Sequence
from itertools import pairwise
from math import prod

from paretopath.errors import InvalidValueError, nearest
from search_spaces.blocks.planning import UnitPlan
from search_spaces.exit_heads import PooledHead

_PARTS = 4
"""Of a model whose features keep their size: exits lie behind each but the last."""


def chosen_exits(exits: Sequence[str] | str, units: Sequence[UnitPlan]) -> tuple[str, ...]:
    """The units behind which there shall be an exit, in order.

    Args:
        exits: their names; ``none``; or ``stages``: the last of each stage.
        units: in order.

    Raises:
        InvalidValueError: another word, no such unit, or one behind which no head can be built.
    """
    possible = [unit for unit in units[:-1] if unit.gives is not None and len(unit.gives) > 2]
    names = [unit.piece.name for unit in possible]
    if exits == "none":
        return ()
    if exits == "stages":
        return _ends_of_stages(possible)
    if isinstance(exits, str):
        raise InvalidValueError(
            f"exits must be a list of units, stages or none, but got {exits!r}; "
            f"{nearest(exits, ['stages', 'none'])}"
        )
    for name in exits:
        if name not in names:
            raise InvalidValueError(
                f"exits: there is no unit {name!r} that hands on one tensor of features; "
                f"{nearest(name, names)}"
            )
    return tuple(name for name in names if name in exits)


def _ends_of_stages(possible: Sequence[UnitPlan]) -> tuple[str, ...]:
    """The last units before features get fewer positions; those at a quarter, half and three
    quarters of the blocks where they never do.
    """
    is_block = [unit.piece.block is not None for unit in possible]
    first = is_block.index(True) if any(is_block) else 0  # before it is a stem
    ends = [
        unit.piece.name
        for unit, after in pairwise(possible[first:])
        if _positions(after) < _positions(unit)
        and (after.piece.block is not None or _positions(after) > 1)  # else pooled
    ]
    if ends:
        return tuple(ends)
    blocks = [unit.piece.name for unit in possible if unit.piece.block is not None]
    parts = [blocks[len(blocks) * part // _PARTS - 1] for part in range(1, _PARTS)]
    return tuple(dict.fromkeys(parts)) if len(blocks) >= _PARTS else tuple(blocks[:-1])


def _positions(unit: UnitPlan) -> int:
    """Of the features that a unit hands on."""
    assert unit.gives is not None
    return prod(unit.gives[1:]) // unit.gives[_axis(unit.gives)]


def _axis(shape: Sequence[int]) -> int:
    """Where the channels of features are: (B, C, Y, X), (B, Y, X, C) or (B, N, C)."""
    is_last = len(shape) != 4 or (shape[1] == shape[2] != shape[3])
    return len(shape) - 1 if is_last else 1


def head_behind(unit: UnitPlan, classes: int) -> PooledHead:
    """A new head on the features that a unit hands on."""
    assert unit.gives is not None
    axis = _axis(unit.gives)
    return PooledHead(unit.gives[axis], axis, classes)
