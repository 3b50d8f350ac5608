"""Batches of (layer, loop order) pairs, laid out so that a question takes few NumPy operations."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from paretopath.cost.hardware import LOOPS, OPERANDS, Floats, Hardware, Loop, Operand
from paretopath.cost.loopnest import (
    EPSILON,
    IRRELEVANT,
    RELEVANT,
    Ints,
    Unrolling,
    Workload,
    columns,
    stages,
)
from paretopath.cost.orders import Schedules

Bools = npt.NDArray[np.bool_]
Number = TypeVar("Number", np.float64, np.bool_)
_WINDOWS: tuple[tuple[Loop, Loop], ...] = (("OY", "FY"), ("OX", "FX"))


@dataclass(frozen=True)
class Nests:
    """N cells: each of n layers in each of p orders of its f factors.

    Positions count the factors below a cut, 0 to f; arrays over positions have shape (f + 1, N), so
    that every operation runs along cells.

    Attributes:
        layers: n.
        steps: (f + 1, N) iterations below each position.
        selecting: for each operand, (f + 1, N) iterations of its relevant loops below.
        sliding: for each loop that moves or crosses the input window, the same.
        relevant, irrelevant: for each operand, (f, N) whether a factor's loop selects its elements
            and nothing else, or does not concern it.
        bits: (N,) of a weight, an input and a finished output.
        partial_bits: (N,) of a partial sum.
        stride, stored: (N,) of the window; stored rows and columns of the input.
        exact, whole: for each operand and stage, (n, 8) units side by side up to it, see
            :class:`~paretopath.cost.loopnest.Unrolling`.
        planned: (n, dimensions) units used along each dimension of the array.
        looping: (n, 8) whether a loop is longer than one.
    """

    layers: int
    steps: Floats
    selecting: dict[Operand, Floats]
    sliding: dict[Loop, Floats]
    relevant: dict[Operand, Bools]
    irrelevant: dict[Operand, Bools]
    bits: dict[Operand, Floats]
    partial_bits: Floats
    stride: Floats
    stored: dict[Loop, Floats]
    exact: dict[Operand, list[Floats]]
    whole: dict[Operand, list[Floats]]
    planned: Floats
    looping: Bools

    @classmethod
    def build(
        cls, hardware: Hardware, work: Workload, unrolling: Unrolling, schedule: Schedules
    ) -> "Nests":
        """Lays out all orders of some layers.

        Args:
            hardware: the design.
            work, unrolling: of the schedule's rows.
            schedule: the orders.
        """
        n, p = len(schedule.rows), len(schedule.orders)
        order = schedule.orders.T  # (f, p)

        def laid_out(values: npt.NDArray[Number]) -> npt.NDArray[Number]:  # (n, f) to (f, N)
            return values.T[order].transpose(0, 2, 1).reshape(len(order), n * p)

        def below(loops: Sequence[Loop]) -> Floats:
            own = np.where(np.isin(schedule.loops, columns(loops)), schedule.factors, 1.0)
            out = np.ones((len(order) + 1, n * p))
            np.cumprod(laid_out(own), axis=0, out=out[1:])
            return out

        def within(loops: Sequence[Loop]) -> Bools:
            return laid_out(np.isin(schedule.loops, columns(loops)))

        def cells(column: Floats) -> Floats:
            return np.repeat(column, p)

        return cls(
            n,
            steps=below(LOOPS),
            selecting={operand: below(RELEVANT[operand]) for operand in OPERANDS},
            sliding={loop: below((loop,)) for pair in _WINDOWS for loop in pair},
            relevant={operand: within(RELEVANT[operand]) for operand in OPERANDS},
            irrelevant={operand: within(IRRELEVANT[operand]) for operand in OPERANDS},
            bits={operand: cells(bits) for operand, bits in work.bits.items()},
            partial_bits=cells(hardware.partial_bits(work.bits)),
            stride=cells(work.stride),
            stored={loop: cells(rows) for loop, rows in work.stored.items()},
            exact={
                operand: _cumulative(hardware, unrolling.exact, operand) for operand in OPERANDS
            },
            whole={
                operand: _cumulative(hardware, unrolling.whole, operand) for operand in OPERANDS
            },
            planned=unrolling.planned.prod(axis=2),
            looping=work.sizes > 1,
        )

    @property
    def total(self) -> Floats:
        """(N,) all iterations."""
        last: Floats = self.steps[-1]
        return last

    @property
    def positions(self) -> int:
        """f + 1."""
        return len(self.steps)

    def cells(self, column: npt.NDArray[Number]) -> npt.NDArray[Number]:
        """(N,) a value of each layer (n,), repeated for its orders."""
        return np.repeat(column, self.steps.shape[1] // self.layers)

    def elements(self, operand: Operand, units: Floats, at: Ints | None = None) -> Floats:
        """Elements of an operand that the loops below a position and the units side by side touch.

        Args:
            operand: which one.
            units: (n, 8) along each loop.
            at: (N,) positions; all of them, for shape (f + 1, N), if None.
        """

        def take(prefix: Floats) -> Floats:
            return prefix if at is None else pick(prefix, at)

        def along(loop: Loop) -> Floats:
            return take(self.sliding[loop]) * self.cells(units[:, LOOPS.index(loop)])

        beside: Floats = units[:, columns(RELEVANT[operand])].prod(axis=1)
        count = take(self.selecting[operand]) * self.cells(beside)
        if operand == "I":
            for out, across in _WINDOWS:
                count = count * window(along(out), along(across), self.stride, self.stored[out])
        return count

    def distinct(self, operand: Operand, units: Floats) -> Floats:
        """(n,) elements of an operand that differ among units (n, 8) side by side."""
        count: Floats = units[:, columns(RELEVANT[operand])].prod(axis=1)
        if operand == "I":
            first = np.arange(self.layers) * (self.steps.shape[1] // self.layers)
            for out, across in _WINDOWS:
                outputs, taps = units[:, LOOPS.index(out)], units[:, LOOPS.index(across)]
                count = count * window(outputs, taps, self.stride[first], self.stored[out][first])
        return count


def _cumulative(hardware: Hardware, units: Floats, operand: Operand) -> list[Floats]:
    total, out = np.ones((len(units), len(LOOPS))), []
    for stage in stages(hardware, operand):
        total = total * units[:, stage].prod(axis=1)
        out.append(total)
    return out


def window(outputs: Floats, taps: Floats, stride: Floats, stored: Floats) -> Floats:
    """Input rows (or columns) that neighbouring results touch, padding not counted.

    Args:
        outputs: how many results.
        taps: how many filter taps.
        stride: between results.
        stored: rows that there are.
    """
    outputs, taps = np.floor(outputs + EPSILON), np.floor(taps + EPSILON)
    touched = outputs * taps - np.maximum(0, taps - stride) * (outputs - 1)
    return np.minimum(touched, stored)


def pick(table: Floats, at: Ints) -> Floats:
    """(N,) the entries of a table (f + 1, N) at positions (N,)."""
    return table.ravel().take(at * len(at) + np.arange(len(at)))


def last_member(members: Bools) -> Ints:
    """(N,) one past the outermost factor that is a member; 0 if none is."""
    places = np.arange(1, len(members) + 1)[:, None]
    last: Ints = np.where(members, places, 0).max(axis=0)
    return last


def next_other(members: Bools) -> Ints:
    """(f + 1, N) the first position from each on whose factor is not a member, or f."""
    f = len(members)
    out = np.full((f + 1, members.shape[1]), f, dtype=np.intp)
    for place in reversed(range(f)):
        out[place] = np.where(members[place], out[place + 1], place)
    return out


def outermost_run(members: Bools, ends: Sequence[Ints], steps: Floats) -> list[Floats]:
    """For each tile, (N,) the iterations of its outermost factors that are all members.

    Args:
        members: (f, N).
        ends: (N,) where each tile ends; it begins where the one before ends.
        steps: (f + 1, N).
    """
    start = np.zeros(steps.shape, dtype=np.intp)
    for place in range(len(members)):
        start[place + 1] = np.where(members[place], start[place], place + 1)
    out, below = [], np.zeros(steps.shape[1], dtype=np.intp)
    for end in ends:
        begin = np.maximum(start.ravel().take(end * len(end) + np.arange(len(end))), below)
        out.append(pick(steps, end) / pick(steps, begin))
        below = end
    return out
