"""What moves between memories: how much, how often, and how many accesses that takes."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from paretopath.cost.allocation import Allocation
from paretopath.cost.hardware import Floats, Hardware, Memory, Move, Operand, Port
from paretopath.cost.loopnest import EPSILON, IRRELEVANT, Ints, columns
from paretopath.cost.nests import Bools, Nests, last_member, outermost_run, pick


@dataclass(frozen=True)
class Transfer:
    """One operand crossing one side of one memory in one direction, for N cells.

    Attributes:
        operand, level, move: what crosses, at which of its memories, which way.
        memory, port: where.
        elements: (N,) a period, for one instance of the memory.
        bits: (N,) of an element.
        period: (N,) cycles.
        count: (N,) periods.
        active: (N,) whether it happens at all: only partial sums come back.
        reuse: (N,) divides the period, to give the part in which a lone tile may be replaced.
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
    active: Bools | None
    reuse: Floats

    @property
    def cycles(self) -> Floats:
        """(N,) cycles for which one period's data keeps the port."""
        return np.ceil(self.elements * self.bits / self.port.max_bits)

    def words(self, instances: Floats) -> Floats:
        """(N,) accesses of the port's full width; a narrow one counts as its least width.

        Args:
            instances: (N,) of the memory.
        """
        port = self.port
        chunks = np.ceil(self.elements * self.bits / port.min_bits)
        share = port.min_bits / port.max_bits
        count = np.floor(chunks * share * self.count * instances)
        return count if self.active is None else np.where(self.active, count, 0)


@dataclass(frozen=True)
class OperandTraffic:
    """One operand on its way through its memories: an entry for the multipliers, then one a memory.

    Attributes:
        tiles: (N,) elements that stay there for a period.
        bits: (N,) of an element that leaves outwards.
        partial: (N,) whether what leaves outwards is still a partial sum; None for what comes in.
        periods: (N,) cycles.
        reuse: (N,) see :class:`Transfer`.
        spread: (N,) for each memory: tiles of the level below that one instance feeds.
        instances: (N,) for each memory.
    """

    tiles: list[Floats]
    bits: list[Floats]
    partial: list[Bools] | None
    periods: list[Floats]
    reuse: list[Floats]
    spread: list[Floats]
    instances: list[Floats]


def follow(
    nests: Nests, allocation: Allocation, operand: Operand, *, whole: bool
) -> OperandTraffic:
    """Sizes, periods and spread of one operand at each of its memories.

    Args:
        nests, allocation: N mappings.
        operand: which one.
        whole: count whole units side by side (for time) instead of their average use (for energy).
    """
    ends = allocation.ends[operand]
    units = (nests.whole if whole else nests.exact)[operand]
    ones = np.ones(nests.steps.shape[1])
    if whole:
        tiles = [
            np.rint(nests.elements(operand, u, end)) for u, end in zip(units, ends, strict=False)
        ]
    else:
        tiles = allocation.tiles[operand]
    first = ones
    if operand != "O":  # it waits at the multipliers while the innermost loops don't concern it
        first = pick(nests.steps, np.logical_and.accumulate(nests.irrelevant[operand]).sum(axis=0))
    distinct = [np.ones(nests.layers), *(nests.distinct(operand, u) for u in units)]
    everything = nests.exact[operand][-1].prod(axis=1)
    partial = _partial(nests, ends, units) if operand == "O" else None
    bits = [nests.bits[operand]] * (len(ends) + 1)
    if partial is not None:
        bits = [np.where(flag, nests.partial_bits, nests.bits[operand]) for flag in partial]
    return OperandTraffic(
        tiles=[ones, *tiles],
        bits=bits,
        partial=partial,
        periods=[first, *(pick(nests.steps, end) for end in ends)],
        reuse=[ones, *outermost_run(nests.irrelevant[operand], ends, nests.steps)],
        spread=[nests.cells(np.rint(above / below)) for below, above in pairwise(distinct)],
        instances=[
            nests.cells(np.rint(np.round(everything / u.prod(axis=1), 3)))
            for u in nests.exact[operand][:-1]
        ],
    )


def _partial(nests: Nests, ends: list[Ints], units: list[Floats]) -> list[Bools]:
    """For the multipliers and each memory, (N,) whether results that leave it are partial sums."""
    last = last_member(nests.irrelevant["O"])
    reducing = columns(IRRELEVANT["O"])
    everything = units[-1][:, reducing].prod(axis=1)
    flags = []
    for below, u in zip([np.zeros_like(last), *ends], units, strict=True):
        beside: Bools = everything > u[:, reducing].prod(axis=1) * (1 + EPSILON)
        flags.append((last > below) | nests.cells(beside))
    return flags


def transfers(
    hardware: Hardware, nests: Nests, operand: Operand, traffic: OperandTraffic
) -> Iterator[Transfer]:
    """Every movement of one operand. What would leave the outermost memory does not count."""
    levels = hardware.levels(operand)
    counts = [np.floor(nests.total / period + EPSILON) for period in traffic.periods]
    for m, memory in enumerate(levels):
        moves: list[tuple[Move, int, Bools | None]]
        if traffic.partial is None:
            moves = [("to_lower", m, None), ("from_higher", m + 1, None)]
        else:
            moves = [
                ("from_lower", m, None),
                ("to_lower", m, traffic.partial[m]),
                ("to_higher", m + 1, None),
                ("from_higher", m + 1, traffic.partial[m + 1]),
            ]
        for move, level, active in moves:
            if level > m and m == len(levels) - 1:
                continue
            port = memory.port(operand, move)
            assert port is not None, "checked when the hardware was read"
            elements = traffic.tiles[level]
            yield Transfer(
                operand,
                m,
                move,
                memory,
                port,
                elements if level > m else elements * traffic.spread[m],
                traffic.bits[level],
                traffic.periods[level],
                counts[level],
                active,
                traffic.reuse[level],
            )
