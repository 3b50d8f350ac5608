"""Which loops each memory holds: tiles as large as they fit, for every layer and loop order at once.

An order of the loops is given to the memories from the multipliers outwards. Each memory takes as many loops of each
operand as its capacity allows, so as to read the next memory least (LOMA, Symons et al., AICAS 2021); operands may stop at
different loops. Loops that an operand does not depend on and that lie just above a tile join it: the tile is stationary
meanwhile. Which operand is stationary at which memory is thus a matter of the order.
"""

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt

from pipeline.cost.hardware import OPERANDS, Hardware, Loop, Memory, Operand
from pipeline.cost.loopnest import (
    IRRELEVANT,
    LOOPS,
    RELEVANT,
    Floats,
    Ints,
    Schedules,
    Unrolling,
    Workload,
    columns,
    stages,
)

Bools = npt.NDArray[np.bool_]
EPSILON = 1e-9  # relative; sizes are whole numbers, or whole numbers divided and multiplied back


@dataclass(frozen=True)
class Nests:
    """n layers in p orders of f factors each. Positions count the factors below a cut: 0 to f.

    Attributes:
        work, unrolling, schedule: the layers, what runs side by side, and the orders.
        steps: (n, p, f + 1) iterations below each position.
        selecting: for each operand the iterations of its relevant loops below each position.
        sliding: the same for each loop that moves or crosses the input window.
        irrelevant, relevant: (n, p, f) for each operand whether a factor's loop selects none or only its elements.
        unrolled: for each operand, for each stage: (n, 8) units along each loop in this stage and those below,
            exact; and the same rounded down.
    """

    work: Workload
    unrolling: Unrolling
    schedule: Schedules
    steps: Floats
    selecting: dict[Operand, Floats]
    sliding: dict[Loop, Floats]
    irrelevant: dict[Operand, Bools]
    relevant: dict[Operand, Bools]
    unrolled: dict[Operand, list[Floats]]
    unrolled_whole: dict[Operand, list[Floats]]

    @classmethod
    def build(
        cls, hardware: Hardware, work: Workload, unrolling: Unrolling, schedule: Schedules
    ) -> "Nests":
        """Lays out the orders of some layers; ``work`` and ``unrolling`` are of the schedule's rows."""

        def below(loops: tuple[Loop, ...]) -> Floats:
            own = np.where(np.isin(schedule.loops, columns(loops)), schedule.factors, 1.0)
            out = np.ones((*own.shape[:1], *(schedule.orders.shape + np.array([0, 1]))))
            np.cumprod(own[:, schedule.orders], axis=2, out=out[:, :, 1:])
            return out

        def within(loops: tuple[Loop, ...]) -> Bools:
            return np.isin(schedule.loops, columns(loops))[:, schedule.orders]

        def cumulative(units: Floats, operand: Operand) -> list[Floats]:
            total, out = np.ones((len(units), len(LOOPS))), []
            for stage in stages(hardware, operand):
                total = total * units[:, stage].prod(axis=1)
                out.append(total)
            return out

        return cls(
            work,
            unrolling,
            schedule,
            steps=below(LOOPS),
            selecting={operand: below(RELEVANT[operand]) for operand in OPERANDS},
            sliding={loop: below((loop,)) for loop in ("OY", "OX", "FY", "FX")},
            irrelevant={operand: within(IRRELEVANT[operand]) for operand in OPERANDS},
            relevant={operand: within(RELEVANT[operand]) for operand in OPERANDS},
            unrolled={operand: cumulative(unrolling.exact, operand) for operand in OPERANDS},
            unrolled_whole={operand: cumulative(unrolling.whole, operand) for operand in OPERANDS},
        )

    def elements(self, operand: Operand, units: Floats, at: Ints | None = None) -> Floats:
        """Elements of an operand that loops below a position and ``units`` (n, 8) side by side touch.

        Args:
            operand: which one.
            units: unrolled loops.
            at: (n, p) positions; all of them, shape (n, p, f + 1), if None.
        """

        def take(prefix: Floats) -> Floats:
            return prefix if at is None else pick(prefix, at)

        def wide(column: Floats) -> Floats:
            return column[:, None, None] if at is None else column[:, None]

        count = take(self.selecting[operand]) * wide(
            units[:, columns(RELEVANT[operand])].prod(axis=1)
        )
        if operand == "I":
            for out, across, stored in (
                ("OY", "FY", self.work.input_height),
                ("OX", "FX", self.work.input_width),
            ):
                count = count * window(
                    take(self.sliding[out]) * wide(units[:, LOOPS.index(out)]),
                    take(self.sliding[across]) * wide(units[:, LOOPS.index(across)]),
                    wide(self.work.stride),
                    wide(stored),
                )
        return count


def window(outputs: Floats, taps: Floats, stride: Floats, stored: Floats) -> Floats:
    """Input rows (or columns) that ``outputs`` neighbouring results of ``taps`` filter taps touch, padding not counted."""
    outputs, taps = np.floor(outputs + EPSILON), np.floor(taps + EPSILON)
    touched = outputs * taps - np.maximum(0, taps - stride) * (outputs - 1)
    return np.minimum(touched, stored)


def pick(table: Floats, at: Ints) -> Floats:
    """The entries (n, p) of a table (n, p, f + 1) at positions (n, p)."""
    return np.take_along_axis(table, at[:, :, None], axis=2)[:, :, 0]


@dataclass(frozen=True)
class Allocation:
    """Where each memory's loops end.

    Attributes:
        ends: for each operand, for each of its memories: (n, p) position below which its tile lies.
        fits: (n, p) whether the order can be run at all.
        exact_tiles: for each operand and memory the (n, p) elements of a tile, on average over edges.
    """

    ends: dict[Operand, list[Ints]]
    fits: Bools
    exact_tiles: dict[Operand, list[Floats]]


def allocate(hardware: Hardware, nests: Nests, partial_bits: Floats) -> Allocation:
    """Fills the memories from the innermost outwards.

    Args:
        hardware: the design.
        nests: n layers, p orders.
        partial_bits: (n,) bits of a partial sum.
    """
    n, p, positions = nests.steps.shape
    cut: dict[Operand, Ints] = {operand: np.zeros((n, p), dtype=np.intp) for operand in OPERANDS}
    ends: dict[Operand, list[Ints]] = {operand: [] for operand in OPERANDS}
    sizes: dict[Operand, list[Floats]] = {operand: [] for operand in OPERANDS}
    fits = np.ones((n, p), dtype=bool)
    last_reduction = _last(nests.irrelevant["O"])
    for memory in hardware.memories:
        choices, fixed = [], np.zeros((n, p))
        for operand in memory.operands:
            m = len(ends[operand])
            tile = nests.elements(operand, nests.unrolled[operand][m])
            sizes[operand].append(tile)
            bits = tile * _stored_bits(
                hardware, nests, operand, m, cut[operand], last_reduction, partial_bits
            )
            if memory.double_buffered:
                bits = np.where(
                    (np.arange(positions) < positions - 1) & (bits < bits[:, :, -1:]),
                    2 * bits,
                    bits,
                )
            if memory is hardware.levels(operand)[-1]:
                fixed += bits[:, :, -1]
                cut[operand] = np.full((n, p), positions - 1)
            else:
                choices.append((operand, bits))
        fits &= fixed <= memory.size_bits
        fits &= _choose(memory, nests, choices, cut, memory.size_bits - fixed)
        for operand in memory.operands:
            ends[operand].append(cut[operand])
    stationary = {operand: _next_dependent(nests.irrelevant[operand]) for operand in OPERANDS}
    for operand in OPERANDS:
        ends[operand] = [pick_index(stationary[operand], end) for end in ends[operand]]
    tiles = {
        operand: [
            np.rint(pick(size, end))
            for size, end in zip(sizes[operand], ends[operand], strict=True)
        ]
        for operand in OPERANDS
    }
    return Allocation(ends, fits, tiles)


def pick_index(table: Ints, at: Ints) -> Ints:
    """Like :func:`pick` for positions."""
    return np.take_along_axis(table, at[:, :, None], axis=2)[:, :, 0]


def _choose(
    memory: Memory,
    nests: Nests,
    choices: list[tuple[Operand, Floats]],
    cut: dict[Operand, Ints],
    room: Floats,
) -> Bools:
    """Moves the cuts of operands that share a memory to where they read the next memory least; returns whether any fits.

    Of equal choices the later wins, which keeps more loops below.
    """
    if not choices:
        return np.ones(room.shape, dtype=bool)
    positions = nests.steps.shape[2]
    places = np.arange(positions)
    left = nests.steps[:, :, -1:] / nests.steps
    *others, (last, last_bits) = choices
    last_cost = np.where(places >= cut[last][:, :, None], left * last_bits, np.inf)
    best = np.full(room.shape, np.inf)
    chosen = {operand: cut[operand].copy() for operand, _ in choices}
    for combination in product(range(positions), repeat=len(others)):
        used, cost = np.zeros(room.shape), np.zeros(room.shape)
        for place, (operand, bits) in zip(combination, others, strict=True):
            used = used + bits[:, :, place]
            cost = cost + np.where(place >= cut[operand], (left * bits)[:, :, place], np.inf)
        total = np.where(
            last_bits <= (room - used)[:, :, None], last_cost + cost[:, :, None], np.inf
        )
        low = total.min(axis=2)
        better = (low <= best * (1 + EPSILON)) & np.isfinite(low)
        best = np.where(better, np.minimum(low, best), best)
        place_last = (
            positions
            - 1
            - np.argmax((total <= low[:, :, None] * (1 + EPSILON))[:, :, ::-1], axis=2)
        )
        chosen[last] = np.where(better, place_last, chosen[last])
        for place, (operand, _) in zip(combination, others, strict=True):
            chosen[operand] = np.where(better, place, chosen[operand])
    cut.update(chosen)
    return np.isfinite(best)


def _stored_bits(
    hardware: Hardware,
    nests: Nests,
    operand: Operand,
    m: int,
    cut: Ints,
    last_reduction: Ints,
    partial_bits: Floats,
) -> Floats:
    """(n, p, 1) bits of an element in memory m: those of a partial sum while a reduction is still to come."""
    bits = nests.work.bits[:, None, None]
    if operand != "O":
        return np.broadcast_to(bits, (*cut.shape, 1))
    later = [d for stage in stages(hardware, "O")[m + 1 :] for d in stage]
    names = list(hardware.array.dimensions)
    reducing = [
        LOOPS.index(loop)
        for d in later
        for loop in hardware.array.unrolling.get(names[d], {})
        if loop in IRRELEVANT["O"]
    ]
    outside = (nests.work.sizes[:, reducing] > 1).any(axis=1)
    partial = (cut < last_reduction) | outside[:, None]
    return np.where(partial[:, :, None], partial_bits[:, None, None], bits)


def _last(members: Bools) -> Ints:
    """(n, p) one past the outermost factor that is a member; 0 if none is."""
    places = np.arange(1, members.shape[2] + 1)
    last: Ints = np.where(members, places, 0).max(axis=2)
    return last


def _next_dependent(irrelevant: Bools) -> Ints:
    """(n, p, f + 1) the first position at or after each whose factor is not irrelevant; f if there is none."""
    f = irrelevant.shape[2]
    out = np.full((*irrelevant.shape[:2], f + 1), f, dtype=np.intp)
    for place in reversed(range(f)):
        out[:, :, place] = np.where(irrelevant[:, :, place], out[:, :, place + 1], place)
    return out
