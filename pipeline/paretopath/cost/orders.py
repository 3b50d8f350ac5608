"""In which orders the loops that are left in time can run.

They are split as in LOMA (Symons et al., "LOMA: Fast Auto-Scheduling on DNN Accelerators through
Loop-Order-based Memory Allocation", AICAS 2021): each loop is cut into its prime factors, the
smallest ones of a loop are merged until few are left, and every order of the factors is a schedule.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations

import numpy as np
import numpy.typing as npt

from paretopath.cost.hardware import LOOPS, Floats
from paretopath.cost.loopnest import Ints, Unrolling, Workload, columns, steps_in_time

MAX_FACTORS = 6  # ZigZag's default loma_lpf_limit: at most 720 orders of a layer's loops


@dataclass(frozen=True)
class Schedules:
    """All orders of the loops left in time, for layers that have the same number of factors.

    Attributes:
        rows: (n,) which layers.
        loops: (n, f) the loop that each factor belongs to, a column.
        factors: (n, f) iterations.
        orders: (p, f) permutations: which factor is innermost, next, … outermost.
    """

    rows: Ints
    loops: Ints
    factors: Floats
    orders: Ints


def schedules(
    work: Workload, unrolling: Unrolling, *, max_factors: int, max_cells: int
) -> Iterator[Schedules]:
    """Splits the loops left in time into factors and lists their orders, in batches of layers.

    Orders that can't differ in cost are listed once: those that swap equal factors of one loop, or
    of a pointwise layer's rows and columns.

    Args:
        work, unrolling: n layers, and what of them runs side by side.
        max_factors: factors of a layer (more where it has more loops).
        max_cells: about how many (layer, order) pairs a batch holds.
    """
    loops, factors, counts = _split(steps_in_time(work, unrolling), max_factors)
    alike = np.where(loops == LOOPS.index("OX"), LOOPS.index("OY"), loops)
    alike = np.where(_rows_are_columns(work, unrolling)[:, None], alike, loops)
    alike[np.arange(loops.shape[1]) >= counts[:, None]] = len(LOOPS)
    order = np.lexsort((factors, alike), axis=1)
    loops, factors, alike = (np.take_along_axis(v, order, axis=1) for v in (loops, factors, alike))
    same = np.zeros(loops.shape, dtype=bool)
    same[:, 1:] = (alike[:, 1:] == alike[:, :-1]) & (factors[:, 1:] == factors[:, :-1])
    same &= alike < len(LOOPS)
    pattern = same @ (1 << np.arange(loops.shape[1]))
    for count, code in np.unique(np.stack([counts, pattern], axis=1), axis=0).tolist():
        orders = _orders(count, code)
        members = np.flatnonzero((counts == count) & (pattern == code))
        batch = max(1, max_cells // len(orders))
        for start in range(0, len(members), batch):
            rows = members[start : start + batch]
            yield Schedules(rows, loops[rows, :count], factors[rows, :count], orders)


def _rows_are_columns(work: Workload, unrolling: Unrolling) -> npt.NDArray[np.bool_]:
    """(n,) whether no operand tells output rows from columns, so that they may swap places."""
    taps = work.sizes[:, columns(("FY", "FX"))]
    beside = unrolling.exact[:, :, columns(("OY", "OX"))]
    fractions = np.abs(beside - np.floor(beside)).sum(axis=(1, 2))
    alike: npt.NDArray[np.bool_] = (taps.max(axis=1) == 1) & (fractions == 0)
    return alike


def _split(steps: Floats, max_factors: int) -> tuple[Ints, Floats, Ints]:
    """Factors of each layer's loops, few enough.

    Returns:
        (n, f) the loop of each factor; (n, f) factors, by loop and rising; (n,) how many.
    """
    factors = _prime_factors(steps)  # (n, 8, f), rising, infinite beyond the last
    counts = np.isfinite(factors).sum(axis=2)
    none = counts.sum(axis=1) == 0
    factors[none, 0, 0], counts[none, 0] = 1, 1
    allowed = np.maximum(max_factors, (counts > 0).sum(axis=1))
    while len(over := np.flatnonzero(counts.sum(axis=1) > allowed)):
        most = counts[over].argmax(axis=1)
        chosen = factors[over, most]
        chosen[:, 1] *= chosen[:, 0]
        chosen[:, 0] = np.inf
        factors[over, most] = np.sort(chosen, axis=1)
        counts[over, most] -= 1
    flat = factors.reshape(len(steps), -1)
    total = counts.sum(axis=1)
    order = np.argsort(~np.isfinite(flat), axis=1, kind="stable")[:, : total.max(initial=1)]
    return order // factors.shape[2], np.take_along_axis(flat, order, axis=1), total


def _prime_factors(steps: Floats) -> Floats:
    """(n, 8, f) rising prime factors of each number, infinite beyond the last; f is at least 2."""
    values, inverse = np.unique(steps.astype(np.int64), return_inverse=True)
    left, found, prime = values.copy(), [], 2
    while prime * prime <= left.max(initial=1):
        while (divides := left % prime == 0).any():
            found.append(np.where(divides, float(prime), np.inf))
            left = np.where(divides, left // prime, left)
        prime += 1
    found += [np.where(left > 1, left.astype(np.float64), np.inf)]
    found += [np.full(len(values), np.inf)] * 2
    table = np.sort(np.stack(found, axis=1), axis=1)
    width = max(2, int(np.isfinite(table).sum(axis=1).max(initial=0)))
    return table[inverse.reshape(steps.shape), :width]


@lru_cache(maxsize=256)
def _orders(count: int, pattern: int) -> Ints:
    """Permutations of ``count`` factors, equal ones in rising order only.

    Args:
        count: factors.
        pattern: bit i is set where factor i equals factor i - 1.
    """
    orders = np.array(list(permutations(range(count))), dtype=np.intp)
    places = np.argsort(orders, axis=1)
    keep = np.ones(len(orders), dtype=bool)
    for i in range(1, count):
        if pattern >> i & 1:
            keep &= places[:, i - 1] < places[:, i]
    return orders[keep]
