"""What moves between memories: how much, how often, and the energy that it takes."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from pipeline.cost.allocation import Allocation, Bools, Nests, pick, window
from pipeline.cost.hardware import Hardware, Memory, Move, Operand, Port
from pipeline.cost.loopnest import IRRELEVANT, LOOPS, RELEVANT, Floats, columns


@dataclass(frozen=True)
class Transfer:
    """One operand crossing one side of one memory, in one direction.

    Attributes:
        operand, level, move: what crosses, at which of its memories, which way.
        memory, port: where.
        elements: (n, p) a period, for one instance of the memory.
        bits: (n, p) of an element.
        period: (n, p) cycles.
        count: (n, p) periods.
        active: (n, p) whether it happens at all (partial sums may not come back).
        reuse: (n, p) the part of the period, as a divisor, in which a tile that is not doubled may be replaced.
    """

    operand: Operand
    level: int
    move: Move
    memory: Memory
    port: Port
    elements: Floats
    bits: Floats
    period: Floats
    count: Floats
    active: Bools
    reuse: Floats

    @property
    def cycles(self) -> Floats:
        """(n, p) cycles that the port takes for one period's data."""
        return np.ceil(self.elements * self.bits / self.port.max_bits)


@dataclass(frozen=True)
class OperandTraffic:
    """One operand's tiles and periods on its way through its memories; level m is its m-th memory, -1 the multipliers.

    Attributes:
        tiles: elements of one instance's tile at level m - 1.
        bits: (n, p) of an element at level m - 1.
        periods: cycles for which the tile at level m - 1 stays.
        spread: (n,) distinct tiles of level m - 1 that one instance of level m feeds.
        instances: (n,) instances of level m in use.
        reuse: see :class:`Transfer`.
    """

    tiles: list[Floats]
    bits: list[Floats]
    partial: list[Bools]
    periods: list[Floats]
    spread: list[Floats]
    instances: list[Floats]
    reuse: list[Floats]


def follow(
    hardware: Hardware,
    nests: Nests,
    allocation: Allocation,
    operand: Operand,
    partial_bits: Floats,
    *,
    whole: bool,
) -> OperandTraffic:
    """Sizes, periods and spread of one operand at each of its memories.

    Args:
        hardware, nests, allocation: the design and the mappings.
        operand: which one.
        partial_bits: (n,) bits of a partial sum.
        whole: count whole units (for time) instead of their average use (for energy).
    """
    ends = allocation.ends[operand]
    unrolled = (nests.unrolled_whole if whole else nests.unrolled)[operand]
    shape = nests.steps.shape[:2]
    if whole:
        tiles = [
            np.rint(nests.elements(operand, units, end))
            for units, end in zip(unrolled, ends, strict=False)
        ]
    else:
        tiles = allocation.exact_tiles[operand]
    first = np.ones(shape)
    if (
        operand != "O"
    ):  # the operand waits at the multipliers while the innermost loops don't concern it
        first = pick(nests.steps, _leading(nests.irrelevant[operand]))
    periods = [first, *(pick(nests.steps, end) for end in ends)]
    distinct = [
        np.ones(len(unrolled[0])),
        *(_distinct(operand, nests, units) for units in unrolled),
    ]
    spread = [np.rint(above / below) for below, above in zip(distinct, distinct[1:], strict=False)]
    everything = nests.unrolled[operand][-1].prod(axis=1)
    instances = [
        np.rint(np.round(everything / units.prod(axis=1), 3))
        for units in nests.unrolled[operand][:-1]
    ]
    partial = _partial(nests, operand, ends, unrolled)
    value = np.broadcast_to(nests.work.bits[:, None], shape)
    bits = [np.where(flag, partial_bits[:, None], value) for flag in partial]
    reuse = [np.ones(shape), *_trailing(nests.irrelevant[operand], ends, nests.steps)]
    return OperandTraffic(
        [np.ones(shape), *tiles], bits, partial, periods, spread, instances, reuse
    )


def _leading(members) -> np.ndarray:  # type: ignore[no-untyped-def, type-arg]
    """(n, p) how many of the innermost factors are members."""
    return np.logical_and.accumulate(members, axis=2).sum(axis=2)


def _distinct(operand: Operand, nests: Nests, units: Floats) -> Floats:
    """(n,) elements that differ among unrolled units."""
    count = units[:, columns(RELEVANT[operand])].prod(axis=1)
    if operand == "I":
        for out, across, stored in (
            ("OY", "FY", nests.work.input_height),
            ("OX", "FX", nests.work.input_width),
        ):
            count = count * window(
                units[:, LOOPS.index(out)], units[:, LOOPS.index(across)], nests.work.stride, stored
            )
    return count


def _partial(nests: Nests, operand: Operand, ends: list, unrolled: list[Floats]) -> list[Bools]:  # type: ignore[type-arg]
    """For level -1 and each memory: (n, p) whether what leaves it upwards is still a partial sum."""
    shape = nests.steps.shape[:2]
    if operand != "O":
        return [np.zeros(shape, dtype=bool)] * (len(ends) + 1)
    places = np.arange(1, nests.irrelevant["O"].shape[2] + 1)
    last = np.where(nests.irrelevant["O"], places, 0).max(axis=2)
    reducing = columns(IRRELEVANT["O"])
    everything = unrolled[-1][:, reducing].prod(axis=1)
    flags = []
    for below, units in zip([np.zeros(shape, dtype=np.intp), *ends], unrolled, strict=True):
        beside = everything > units[:, reducing].prod(axis=1) * (1 + 1e-9)
        flags.append((last > below) | beside[:, None])
    return flags


def _trailing(members, ends, steps) -> list[Floats]:  # type: ignore[no-untyped-def]
    """For each memory: (n, p) iterations of the outermost of its factors that are all members."""
    places = np.arange(1, members.shape[2] + 1)
    start = np.zeros(steps.shape, dtype=np.intp)
    np.maximum.accumulate(np.where(members, 0, places), axis=2, out=start[:, :, 1:])
    out, below = [], np.zeros(steps.shape[:2], dtype=np.intp)
    for end in ends:
        begin = np.maximum(np.take_along_axis(start, end[:, :, None], axis=2)[:, :, 0], below)
        out.append(pick(steps, end) / pick(steps, begin))
        below = end
    return out


def transfers(
    hardware: Hardware, nests: Nests, operand: Operand, traffic: OperandTraffic
) -> Iterator[Transfer]:
    """Every movement of one operand. What would leave the outermost memory does not count."""
    levels = hardware.levels(operand)
    total = nests.steps[:, :, -1]
    always = np.ones(total.shape, dtype=bool)
    for m, memory in enumerate(levels):
        moves: list[tuple[Move, int, Bools]] = [
            ("to_lower", m, traffic.partial[m] if operand == "O" else always)
        ]
        if operand == "O":
            moves.insert(0, ("from_lower", m, always))
        if m < len(levels) - 1:
            if operand == "O":
                moves.append(("to_higher", m + 1, always))
                moves.append(("from_higher", m + 1, traffic.partial[m + 1]))
            else:
                moves.append(("from_higher", m + 1, always))
        for move, level, active in moves:
            port = memory.port(operand, move)
            assert port is not None
            elements = traffic.tiles[level]
            if level == m:  # one instance feeds several below
                elements = elements * traffic.spread[m][:, None]
            yield Transfer(
                operand,
                m,
                move,
                memory,
                port,
                elements,
                traffic.bits[level],
                traffic.periods[level],
                np.floor(total / traffic.periods[level] + 1e-9),
                active,
                traffic.reuse[level],
            )


def words(transfer: Transfer, instances: Floats) -> Floats:
    """(n, p) accesses of the port's full width, over all instances (n,); narrow ones count as the narrowest that there is."""
    port = transfer.port
    chunks = np.ceil(transfer.elements * transfer.bits / port.min_bits)
    count = np.floor(chunks * (port.min_bits / port.max_bits) * transfer.count * instances[:, None])
    return np.where(transfer.active, count, 0)
