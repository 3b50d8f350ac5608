"""Widths, as families share them: shares into channels and heads."""

import math
from collections.abc import Sequence

from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import Value


def fractions(name: str, values: Sequence[float]) -> tuple[float, ...]:
    """Ascending distinct shares, 1 among them: the full path is the model itself.

    Raises:
        InvalidValueError: no 1; names the option.
    """
    if 1 not in values:
        raise InvalidValueError(f"{name} must include 1.0, but got {list(values)}")
    return tuple(sorted({float(value) for value in values}))


def channels(full: int, ratio: Value, divisor: int = 1) -> int:
    """The channels that a share keeps of ``full``: a multiple of ``divisor``, see below."""
    return entries_kept(full, 1, ratio, divisor)


def entries_kept(entries: int, width: int, ratio: Value, divisor: int) -> int:
    """The entries that a share keeps, so that their channels are a multiple of ``divisor``.

    Args:
        entries: at the fullest.
        width: channels of an entry.
        ratio: in (0, 1].
        divisor: the nearest multiple of it is taken, one at least; where there are fewer than four
            multiples, channels are taken as they come.
    """
    step = math.lcm(width, divisor) // width  # entries whose channels are a multiple
    if entries < 4 * step:
        step = 1
    kept = max(1, math.floor(entries * float(ratio) / step + 0.5)) * step
    return min(entries, kept)


def head_counts(heads: int, ratios: Sequence[float]) -> tuple[int, ...]:
    """The numbers of attention heads that shares keep, rounded up, ascending and distinct."""
    return tuple(sorted({math.ceil(heads * ratio) for ratio in ratios}))


def multiple_of_heads(name: str, widths: Sequence[int], heads: Sequence[int]) -> None:
    """InvalidValueError, naming the option of the widths, where heads don't divide one evenly."""
    for width, count in zip(widths, heads, strict=True):
        if width % count:
            near = max(1, round(width / count)) * count
            raise InvalidValueError(
                f"{name} must be a multiple of the attention heads, which are {count}, "
                f"but got {width}; nearest: {near}"
            )


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
            raise InvalidValueError(
                f"skippable: there is no block {block!r}; {nearest(block, every)}"
            )
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
            raise InvalidValueError(
                f"forms: there is no decoder form {form!r}; {nearest(form, legal)}"
            )
    if legal[-1] not in forms:
        raise InvalidValueError(f"forms must include {legal[-1]}, but got {list(forms)}")
    return tuple(form for form in legal if form in forms)
