"""Which loops each memory holds: tiles as large as fit, for every layer and loop order at once.

An order of the loops is given to the memories from the multipliers outwards. Each memory takes as
many loops of each operand as fit into it and into those further out, so as to read the next memory
least (LOMA, Symons et al., AICAS 2021); operands may stop at different loops. Loops that an operand
does not depend on and that lie just above its tile join it: the tile is stationary meanwhile. Which
operand is stationary at which memory is thus a matter of the order.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from paretopath.cost.hardware import LOOPS, OPERANDS, Floats, Hardware, Operand
from paretopath.cost.loopnest import EPSILON, IRRELEVANT, Ints, stages
from paretopath.cost.nests import Bools, Nests, last_member, next_other, pick


@dataclass(frozen=True)
class Allocation:
    """Where each memory's loops end, for N cells.

    Attributes:
        ends: for each operand, for each of its memories: (N,) position below which its tile lies.
        tiles: for each operand and memory, (N,) elements of a tile, on average over edges.
        fits: (N,) whether the order can be run at all.
    """

    ends: dict[Operand, list[Ints]]
    tiles: dict[Operand, list[Floats]]
    fits: Bools


def allocate(hardware: Hardware, nests: Nests, *, evenly: bool = False) -> Allocation:
    """Fills the memories from the innermost outwards.

    Args:
        hardware: the design.
        nests: the orders.
        evenly: tiles of inner memories leave room further out for as much of every other operand.
    """
    count = nests.steps.shape[1]
    everything = np.full(count, nests.positions - 1)
    cut: dict[Operand, Ints] = {operand: np.zeros(count, dtype=np.intp) for operand in OPERANDS}
    ends: dict[Operand, list[Ints]] = {operand: [] for operand in OPERANDS}
    sizes = {operand: _sizes(hardware, nests, operand, evenly) for operand in OPERANDS}
    whole = {o: nests.elements(o, nests.exact[o][len(sizes[o])], everything) for o in OPERANDS}
    last_reduction = last_member(nests.irrelevant["O"])
    fits = np.ones(count, dtype=bool)
    for memory in hardware.memories:
        choices: list[tuple[Operand, Floats]] = []
        room = np.full(count, float(memory.size_bits))
        for operand in memory.operands:
            m = len(ends[operand])
            stored = _stored_bits(hardware, nests, operand, m, cut[operand], last_reduction)
            if m == len(sizes[operand]):  # the operand's outermost memory holds all of it
                room -= whole[operand] * stored
                cut[operand] = everything
                continue
            bits = sizes[operand][m] * stored
            if memory.double_buffered:
                partly = np.arange(nests.positions)[:, None] < nests.positions - 1
                bits = np.where(partly & (bits < bits[-1]), 2 * bits, bits)
            choices.append((operand, bits))
        fits &= room >= 0
        fits &= _choose(nests, choices, cut, room)
        for operand in memory.operands:
            ends[operand].append(cut[operand])
    tiles = {}
    for operand in OPERANDS:
        stationary = next_other(nests.irrelevant[operand]).ravel()
        ends[operand] = [stationary.take(end * count + np.arange(count)) for end in ends[operand]]
        inner = [pick(size, end) for size, end in zip(sizes[operand], ends[operand], strict=False)]
        tiles[operand] = [np.rint(tile) for tile in (*inner, whole[operand])]
    return Allocation(ends, tiles, fits)


def _sizes(hardware: Hardware, nests: Nests, operand: Operand, evenly: bool) -> list[Floats]:
    """For each memory but the outermost, (f + 1, N) elements of a tile that ends at each position.

    Infinite where the tiles of all instances together would not fit into a memory further out, or
    into the operand's even share of it.
    """
    levels = hardware.levels(operand)[:-1]
    sizes = [nests.elements(operand, nests.exact[operand][m]) for m in range(len(levels))]
    for m in reversed(range(1, len(levels))):
        bits, room = nests.bits[operand], float(levels[m].size_bits)
        if evenly:
            bits = nests.partial_bits if operand == "O" else nests.bits[operand]
            room /= len(levels[m].operands) * (2 if levels[m].double_buffered else 1)
        beyond = sizes[m] * bits > room
        sizes[m - 1] = np.where(beyond | np.isinf(sizes[m]), np.inf, sizes[m - 1])
    return sizes


def _choose(
    nests: Nests, choices: Sequence[tuple[Operand, Floats]], cut: dict[Operand, Ints], room: Floats
) -> Bools:
    """Moves the cuts of operands that share a memory to where the next memory is read least.

    Of equal choices the later wins, which keeps more loops below.

    Args:
        nests: N cells.
        choices: operands with the (f + 1, N) bits of their tiles that end at each position.
        cut: (N,) where the tiles below end; moved.
        room: (N,) bits.

    Returns:
        (N,) whether there is a choice that fits.
    """
    if not choices:
        return np.ones(len(room), dtype=bool)
    traffic = [
        _from_cut(nests.total / nests.steps * bits, cut[operand]) for operand, bits in choices
    ]
    *others, (last, last_bits) = choices
    cheapest, place_of_cheapest = _running_minimum(traffic[-1])
    best = np.full(len(room), np.inf)
    chosen = {operand: cut[operand] for operand, _ in choices}
    for places in product(range(nests.positions), repeat=len(others)):
        left, cost = room, np.zeros(len(room))
        for place, (_, bits), reads in zip(places, others, traffic, strict=False):
            left = left - bits[place]
            cost = cost + reads[place]
        fitting = (last_bits <= left).sum(axis=0) - 1  # tiles grow with the position
        place_of_last = pick(place_of_cheapest, np.maximum(fitting, 0)).astype(np.intp)
        total = np.where(fitting >= 0, cost + pick(cheapest, np.maximum(fitting, 0)), np.inf)
        better = (total <= best * (1 + EPSILON)) & (total < np.inf)
        best = np.where(better, np.minimum(total, best), best)
        chosen[last] = np.where(better, place_of_last, chosen[last])
        for other, (operand, _) in zip(places, others, strict=True):
            chosen[operand] = np.where(better, other, chosen[operand])
    cut.update(chosen)
    found: Bools = best < np.inf
    return found


def _from_cut(traffic: Floats, cut: Ints) -> Floats:
    places = np.arange(len(traffic))[:, None]
    return np.where(places >= cut, traffic, np.inf)


def _running_minimum(costs: Floats) -> tuple[Floats, Floats]:
    """(f + 1, N) the least of the entries up to each position, and the last place that has it."""
    least, place = costs.copy(), np.zeros(costs.shape)
    for i in range(1, len(costs)):
        better = costs[i] <= least[i - 1] * (1 + EPSILON)
        least[i] = np.where(better, np.minimum(costs[i], least[i - 1]), least[i - 1])
        place[i] = np.where(better, i, place[i - 1])
    return least, place


def _stored_bits(
    hardware: Hardware, nests: Nests, operand: Operand, m: int, cut: Ints, last_reduction: Ints
) -> Floats:
    """(N,) bits of an element in memory m: a partial sum's while a reduction is still to come."""
    if operand != "O":
        return nests.bits[operand]
    names = list(hardware.array.dimensions)
    reducing = [
        LOOPS.index(loop)
        for stage in stages(hardware, "O")[m + 1 :]
        for d in stage
        for loop in hardware.array.unrolling.get(names[d], {})
        if loop in IRRELEVANT["O"]
    ]
    beside = nests.looping[:, reducing].sum(axis=1) > 0
    partial = (cut < last_reduction) | nests.cells(beside)
    return np.where(partial, nests.partial_bits, nests.bits[operand])
