"""Layers as loop nests, and what of them runs side by side on the array."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from paretopath.cost.hardware import LOOPS, Floats, Hardware, Loop, Memory, Operand
from paretopath.tracing import Layer

Ints = npt.NDArray[np.intp]

# Loops that select an element of an operand, and loops that don't. Those in neither slide a window.
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
EPSILON = 1e-9  # relative: sizes are whole numbers, or whole numbers divided and multiplied back


@dataclass(frozen=True)
class Workload:
    """n layers with multiply-accumulates, as a table.

    Attributes:
        table: (n, 13) iterations of each of :data:`~paretopath.cost.hardware.LOOPS` (channels are
            per group), stride, stored rows and columns of the input, bits of a weight, bits of an
            activation.
    """

    table: Floats

    @classmethod
    def of(cls, layers: Sequence[Layer]) -> "Workload":
        """The loop bounds of layers, none of them a pass."""
        rows = [
            (*loop_sizes(v), v.stride, v.iy, v.ix, v.stationary_bits, v.activation_bits)
            for v in layers
        ]
        return cls(np.array(rows, dtype=np.float64).reshape(len(layers), len(LOOPS) + 5))

    @property
    def sizes(self) -> Floats:
        """(n, 8) iterations of each loop."""
        return self.table[:, : len(LOOPS)]

    @property
    def stride(self) -> Floats:
        """(n,) of the window, both ways."""
        return self.table[:, len(LOOPS)]

    @property
    def stored(self) -> dict[Loop, Floats]:
        """(n,) rows and columns of the input, named by the loop of outputs along them."""
        return {"OY": self.table[:, len(LOOPS) + 1], "OX": self.table[:, len(LOOPS) + 2]}

    @property
    def bits(self) -> dict[Operand, Floats]:
        """(n,) of a weight, an input and a finished output."""
        weights, activations = self.table[:, -2], self.table[:, -1]
        return {"O": activations, "W": weights, "I": activations}

    def take(self, rows: Ints) -> "Workload":
        """Some of the layers."""
        return Workload(self.table[rows])


def loop_sizes(layer: Layer) -> tuple[int, ...]:
    """Iterations of each of :data:`~paretopath.cost.hardware.LOOPS`; channels are per group."""
    k, c = layer.k // layer.groups, layer.c // layer.groups
    return layer.b, layer.groups, k, c, layer.oy, layer.ox, layer.fy, layer.fx


def columns(loops: Sequence[Loop]) -> Ints:
    """The columns of some loops."""
    return np.array([LOOPS.index(loop) for loop in loops], dtype=np.intp)


@dataclass(frozen=True)
class Unrolling:
    """What runs side by side, each of shape (n, dimensions of the array, 8).

    Attributes:
        planned: units used along each dimension.
        exact: the same as a fraction that cuts the loop into whole steps: average use, for energy.
        whole: the same rounded down, for time.
    """

    planned: Floats
    exact: Floats
    whole: Floats

    def take(self, rows: Ints) -> "Unrolling":
        """Some of the layers."""
        return Unrolling(self.planned[rows], self.exact[rows], self.whole[rows])


def stages(hardware: Hardware, operand: Operand) -> list[list[int]]:
    """Array dimensions between an operand's memories.

    Returns:
        Entry m lies below memory m, the last one above all of them.
    """
    dimensions = list(hardware.array.dimensions)
    left = list(range(len(dimensions)))
    found = []
    for memory in hardware.levels(operand):
        stage = [d for d in left if dimensions[d] in memory.serves]
        left = [d for d in left if d not in stage]
        found.append(stage)
    return [*found, left]


def unroll(hardware: Hardware, work: Workload) -> Unrolling:
    """Fits the array's unrolling to each layer: a loop shorter than the array leaves units idle.

    A loop takes as few steps as the units along it allow, all equally full. Along several
    dimensions it uses as few units of the outer ones as that takes.
    """
    planned = _limit_to_sizes(hardware, work)
    _limit_to_capacity(hardware, work, planned)
    exact, whole = np.ones_like(planned), np.ones_like(planned)
    names = list(hardware.array.dimensions)
    for column, loop in enumerate(LOOPS):
        along = [names.index(d) for d, loops in hardware.array.unrolling.items() if loop in loops]
        if not along:
            continue
        size = work.sizes[:, column]
        left = size / np.ceil(size / planned[:, along, column].prod(axis=1))
        for position in reversed(range(1, len(along))):
            inner = planned[:, along[:position], column].prod(axis=1)
            exact[:, along[position], column] = np.ceil(left / inner - EPSILON)
            left = left / exact[:, along[position], column]
        exact[:, along[0], column] = left
        whole[:, along, column] = np.floor(exact[:, along, column] + EPSILON)
    return Unrolling(planned, exact, whole)


def steps_in_time(work: Workload, unrolling: Unrolling) -> Floats:
    """(n, 8) iterations of each loop that do not run side by side."""
    steps: Floats = np.ceil(work.sizes / unrolling.exact.prod(axis=1) - EPSILON)
    return np.maximum(steps, 1)


def _limit_to_sizes(hardware: Hardware, work: Workload) -> Floats:
    """(n, dimensions, 8) units along each loop: what the layer, the array and the ports allow."""
    names = list(hardware.array.dimensions)
    planned = np.ones((len(work.table), len(names), len(LOOPS)))
    for name, factors in hardware.array.unrolling.items():
        d, size = names.index(name), hardware.array.dimensions[name]
        for loop, factor in factors.items():
            limit = np.minimum(work.sizes[:, LOOPS.index(loop)], min(factor, size))
            for memory, operand in _inner(hardware):
                if name in memory.serves and loop not in IRRELEVANT[operand]:
                    port = memory.port(operand, "from_lower" if operand == "O" else "to_lower")
                    assert port is not None, "checked when the hardware was read"
                    elements = port.max_bits // _bits(hardware, work, operand)
                    limit = np.minimum(limit, np.maximum(elements, 1))
            planned[:, d, LOOPS.index(loop)] = limit
        for loop in factors:  # too much for the dimension: the loops named first give way
            planned[planned[:, d].prod(axis=1) > size, d, LOOPS.index(loop)] = 1
    for d in reversed(range(len(names))):  # too much for a loop: the outer dimensions shrink
        others = np.delete(planned, d, axis=1).prod(axis=1)
        planned[:, d] = np.minimum(planned[:, d], np.ceil(work.sizes / others))
    return planned


def _limit_to_capacity(hardware: Hardware, work: Workload, planned: Floats) -> None:
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
        room = memory.size_bits / _bits(hardware, work, operand)
        while True:
            units = planned[:, d, column]
            over = np.flatnonzero((units.prod(axis=1) > room) & (units.max(axis=1) > 1))
            if not len(over):
                break
            largest = units[over].argmax(axis=1)
            planned[over, d[largest], column[largest]] -= 1


def _bits(hardware: Hardware, work: Workload, operand: Operand) -> Floats:
    return hardware.partial_bits(work.bits) if operand == "O" else work.bits[operand]


def _inner(hardware: Hardware) -> list[tuple[Memory, Operand]]:
    """Memories with nothing below them, with each operand that they hold."""
    return [
        (memory, operand)
        for memory in hardware.memories
        if all(hardware.levels(operand)[0] is memory for operand in memory.operands)
        for operand in memory.operands
    ]
