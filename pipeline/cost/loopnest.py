"""Layers as loop nests: what runs side by side on the array, and in which orders the rest can run in time.

The loops are split as in LOMA (Symons et al., "LOMA: Fast Auto-Scheduling on DNN Accelerators through
Loop-Order-based Memory Allocation", AICAS 2021): each loop that is left in time is cut into its prime factors, the
smallest ones of a loop are merged until few are left, and every order of the factors is a schedule.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

from pipeline.cost.hardware import LOOP_NAMES, Hardware, Loop, Memory, Operand
from pipeline.tracing import Layer

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]

LOOPS = LOOP_NAMES
# Loops that select an element of an operand, and loops that don't. What is in neither slides a window over inputs.
RELEVANT: dict[Operand, tuple[Loop, ...]] = {
    "W": ("G", "K", "C", "FY", "FX"),
    "I": ("B", "G", "C"),
    "O": ("B", "G", "K", "OY", "OX"),
}
IRRELEVANT: dict[Operand, tuple[Loop, ...]] = {
    "W": ("B", "OY", "OX"),
    "I": ("K",),
    "O": ("C", "FY", "FX"),
}
MAX_FACTORS = 6  # ZigZag's default loma_lpf_limit: at most 720 orders of a layer's loops


@dataclass(frozen=True)
class Workload:
    """n layers with multiply-accumulates.

    Attributes:
        sizes: (n, 8) iterations of each of :data:`LOOPS`; channels are per group.
        stride: (n,).
        input_height, input_width: (n,) as stored.
        bits: (n,) of an input, weight or output.
    """

    sizes: Floats
    stride: Floats
    input_height: Floats
    input_width: Floats
    bits: Floats

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> "Workload":
        """The loop bounds of layers, none of them a pass."""
        table = np.array(
            [(*loop_sizes(v), v.stride, v.iy, v.ix, v.bits) for v in layers], dtype=np.float64
        ).reshape(len(layers), len(LOOPS) + 4)
        n = len(LOOPS)
        return cls(table[:, :n], table[:, n], table[:, n + 1], table[:, n + 2], table[:, n + 3])

    def take(self, rows: Ints) -> "Workload":
        """Some of the layers."""
        columns = (self.sizes, self.stride, self.input_height, self.input_width, self.bits)
        return Workload(*(column[rows] for column in columns))


def loop_sizes(layer: Layer) -> tuple[int, ...]:
    """Iterations of each of :data:`LOOPS`; channels are per group."""
    k, c = layer.k // layer.groups, layer.c // layer.groups
    return layer.b, layer.groups, k, c, layer.oy, layer.ox, layer.fy, layer.fx


def columns(loops: Sequence[Loop]) -> Ints:
    """The columns of some loops."""
    return np.array([LOOPS.index(loop) for loop in loops], dtype=np.intp)


@dataclass(frozen=True)
class Unrolling:
    """What runs side by side: an array of shape (n, dimensions of the array, 8) each.

    Attributes:
        planned: units used along each dimension.
        exact: the same, as a fraction that divides the loop's size by a whole number of steps: the average use, for energy.
        whole: the same, rounded down, for time.
    """

    planned: Floats
    exact: Floats
    whole: Floats

    def take(self, rows: Ints) -> "Unrolling":
        """Some of the layers."""
        return Unrolling(self.planned[rows], self.exact[rows], self.whole[rows])


def stages(hardware: Hardware, operand: Operand) -> list[list[int]]:
    """Array dimensions between an operand's memories: entry m lies below memory m, the last above all of them."""
    dimensions = list(hardware.array.dimensions)
    left = list(range(len(dimensions)))
    found = []
    for memory in hardware.levels(operand):
        stage = [d for d in left if dimensions[d] in memory.serves]
        left = [d for d in left if d not in stage]
        found.append(stage)
    return [*found, left]


def unroll(hardware: Hardware, work: Workload) -> Unrolling:
    """Fits the array's unrolling to each layer: a loop shorter than the array leaves multipliers idle.

    Args:
        hardware: the design.
        work: n layers.
    """
    partial_bits = hardware.partial_bits(work.bits)
    planned = _limit_to_sizes(hardware, work, partial_bits)
    _limit_to_capacity(hardware, work, partial_bits, planned)
    exact, whole = np.ones_like(planned), np.ones_like(planned)
    order = [list(hardware.array.dimensions).index(d) for d in hardware.array.unrolling]
    for position, d in enumerate(order):
        for loop in next(
            v for i, v in enumerate(hardware.array.unrolling.values()) if i == position
        ):
            column = LOOPS.index(loop)
            size, units = work.sizes[:, column], planned[:, d, column]
            # a loop on several dimensions: the longest one takes up the remainder
            widest = np.array(order)[np.argmax(planned[:, order, column], axis=1)] == d
            for out, whole_units in ((exact, False), (whole, True)):
                before = np.prod(out[:, order[:position], column], axis=1)
                share = size / np.ceil(size / (units * before)) / before
                out[:, d, column] = np.where(
                    widest, np.floor(share) if whole_units else share, units
                )
    return Unrolling(planned, exact, whole)


def _limit_to_sizes(hardware: Hardware, work: Workload, partial_bits: Floats) -> Floats:
    names = list(hardware.array.dimensions)
    planned = np.ones((len(work.sizes), len(names), len(LOOPS)))
    for name, factors in hardware.array.unrolling.items():
        d, size = names.index(name), hardware.array.dimensions[name]
        for loop, factor in factors.items():
            limit = np.minimum(work.sizes[:, LOOPS.index(loop)], min(factor, size))
            for memory, operand in _inner(hardware):
                if name in memory.serves and loop not in IRRELEVANT[operand]:
                    port = memory.port(operand, "from_lower" if operand == "O" else "to_lower")
                    assert port is not None
                    bits = partial_bits if operand == "O" else work.bits
                    limit = np.minimum(limit, np.maximum(port.max_bits // bits, 1))
            planned[:, d, LOOPS.index(loop)] = limit
        for loop in factors:  # too much for the dimension: the loops named first give way
            over = planned[:, d].prod(axis=1) > size
            planned[over, d, LOOPS.index(loop)] = 1
    for d in reversed(range(len(names))):  # too much for a loop: the outer dimensions give way
        over = planned.prod(axis=1) > work.sizes
        planned[:, d][over] = 1
    return planned


def _limit_to_capacity(
    hardware: Hardware, work: Workload, partial_bits: Floats, planned: Floats
) -> None:
    """Shrinks ``planned`` where an innermost memory can't hold what one step brings."""
    names = list(hardware.array.dimensions)
    for memory, operand in _inner(hardware):
        entries = [
            (names.index(name), LOOPS.index(loop))
            for name in memory.serves
            for loop in hardware.array.unrolling.get(name, {})
            if loop not in IRRELEVANT[operand]
        ]
        if not entries:
            continue
        d, column = np.array(entries).T
        room = memory.size_bits / (partial_bits if operand == "O" else work.bits)
        while True:
            units = planned[:, d, column]
            over = np.flatnonzero((units.prod(axis=1) > room) & (units.max(axis=1) > 1))
            if not len(over):
                break
            largest = units[over].argmax(axis=1)
            planned[over, d[largest], column[largest]] -= 1


def _inner(hardware: Hardware) -> list[tuple[Memory, Operand]]:
    """Memories with nothing below them, with each operand that they hold."""
    return [
        (memory, operand)
        for memory in hardware.memories
        if all(hardware.levels(operand)[0] is memory for operand in memory.operands)
        for operand in memory.operands
    ]


@dataclass(frozen=True)
class Schedules:
    """All orders of the loops left in time, for layers that have the same number of them.

    Attributes:
        rows: (n,) which layers.
        loops: (n, f) the loop that each factor belongs to, a column of :data:`LOOPS`.
        factors: (n, f) iterations.
        orders: (p, f) permutations: which factor is innermost, next, … outermost.
    """

    rows: Ints
    loops: Ints
    factors: Floats
    orders: Ints


def schedules(steps: Floats, *, max_factors: int, max_cells: int) -> Iterator[Schedules]:
    """Splits loops into factors and lists the orders, in batches of layers.

    Args:
        steps: (n, 8) iterations left in time.
        max_factors: factors of a layer (more where it has more loops).
        max_cells: about how many (layer, order) pairs a batch holds.
    """
    loops, factors, counts = _split(steps, max_factors)
    same = np.zeros(loops.shape, dtype=bool)
    same[:, 1:] = (loops[:, 1:] == loops[:, :-1]) & (factors[:, 1:] == factors[:, :-1])
    same &= np.arange(loops.shape[1]) < counts[:, None]
    pattern = same @ (1 << np.arange(loops.shape[1]))
    for count, code in np.unique(np.stack([counts, pattern], axis=1), axis=0).tolist():
        orders = _orders(count, code)
        members = np.flatnonzero((counts == count) & (pattern == code))
        batch = max(1, max_cells // len(orders))
        for start in range(0, len(members), batch):
            rows = members[start : start + batch]
            yield Schedules(rows, loops[rows, :count], factors[rows, :count], orders)


def _split(steps: Floats, max_factors: int) -> tuple[Ints, Floats, Ints]:
    """Prime factors, the smallest of the loop that has most merged until few are left: (n, f) twice and (n,)."""
    factors = _prime_factors(steps)  # (n, 8, f) ascending, inf beyond the last
    counts = np.isfinite(factors).sum(axis=2)
    none = counts.sum(axis=1) == 0
    factors[none, 0, 0], counts[none, 0] = 1, 1
    allowed = np.maximum(max_factors, (counts > 0).sum(axis=1))
    while len(over := np.flatnonzero(counts.sum(axis=1) > allowed)):
        longest = counts[over].argmax(axis=1)
        chosen = factors[over, longest]
        chosen[:, 1] *= chosen[:, 0]
        chosen[:, 0] = np.inf
        factors[over, longest] = np.sort(chosen, axis=1)
        counts[over, longest] -= 1
    n, width = len(steps), factors.shape[2]
    flat = factors.reshape(n, -1)
    order = np.argsort(~np.isfinite(flat), axis=1, kind="stable")
    total = counts.sum(axis=1)
    order = order[:, : total.max(initial=1)]
    return order // width, np.take_along_axis(flat, order, axis=1), total


def _prime_factors(steps: Floats) -> Floats:
    values, inverse = np.unique(steps.astype(np.int64), return_inverse=True)
    left, found = values.copy(), []
    p = 2
    while p * p <= left.max(initial=1):
        while (divides := left % p == 0).any():
            found.append(np.where(divides, float(p), np.inf))
            left = np.where(divides, left // p, left)
        p += 1
    found.append(np.where(left > 1, left.astype(np.float64), np.inf))
    table = np.sort(np.stack(found, axis=1), axis=1)
    width = max(2, int(np.isfinite(table).sum(axis=1).max()))
    table = np.pad(table, ((0, 0), (0, 2)), constant_values=np.inf)[:, :width]
    return table[inverse.reshape(steps.shape)]


@lru_cache(maxsize=256)
def _orders(count: int, pattern: int) -> Ints:
    """Permutations of ``count`` factors, those of equal factors once: bit i of ``pattern``: factor i equals i - 1."""
    orders = np.array(list(permutations(range(count))), dtype=np.intp)
    places = np.argsort(orders, axis=1)
    keep = np.ones(len(orders), dtype=bool)
    for i in range(1, count):
        if pattern >> i & 1:
            keep &= places[:, i - 1] < places[:, i]
    return orders[keep]
