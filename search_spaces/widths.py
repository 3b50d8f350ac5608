"""Widths, as families share them: shares into channels and heads."""

import math
from collections.abc import Sequence

from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import Value


def fractions(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Ascending distinct shares in (0, 1], 1 among them: the full path is the model itself.

    Raises:
        InvalidValueError: a share outside its range, or no 1; names the option.
    """
    for value in values:
        if isinstance(value, bool) or not 0 < value <= 1:
            raise InvalidValueError(f"{name} must lie in (0, 1], but got {value}")
    if 1 not in values:
        raise InvalidValueError(f"{name} must include 1.0, but got {list(values)}")
    return tuple(sorted({float(value) for value in values}))


def channels(full: int, ratio: Value) -> int:
    """The channels that a share keeps of ``full``, at least one."""
    return max(1, round(full * float(ratio)))


def head_counts(heads: int, ratios: Sequence[float]) -> tuple[int, ...]:
    """The numbers of attention heads that shares keep, rounded up, ascending and distinct."""
    return tuple(sorted({math.ceil(heads * ratio) for ratio in ratios}))


def skippable_blocks(blocks: Sequence[str] | str, every: Sequence[str]) -> frozenset[str]:
    """The blocks that a path may skip: ``all``, ``none`` or some of every block's names.

    Raises:
        InvalidValueError: another word, or no such block.
    """
    if isinstance(blocks, str):
        if blocks not in ("all", "none"):
            raise InvalidValueError(
                f"skippable must be a list of blocks, all or none, but got {blocks!r}; "
                f"{nearest(blocks, ['all', 'none'])}"
            )
        return frozenset(every if blocks == "all" else ())
    for block in blocks:
        if block not in every:
            raise InvalidValueError(f"there is no block {block!r}; {nearest(block, every)}")
    return frozenset(blocks)


def decoder_forms(forms: Sequence[str], legal: tuple[str, ...]) -> tuple[Value, ...]:
    """The forms that a decoder may take, from cheapest to fullest.

    Args:
        forms: some of ``legal``.
        legal: from cheapest to fullest; the last one is the published form.

    Raises:
        InvalidValueError: another form, or not the published one.
    """
    for form in forms:
        if form not in legal:
            raise InvalidValueError(f"there is no decoder form {form!r}; {nearest(form, legal)}")
    if legal[-1] not in forms:
        raise InvalidValueError(f"forms must include {legal[-1]}, but got {list(forms)}")
    return tuple(form for form in legal if form in forms)
