"""How long a mapping takes: the multipliers' steps, and what the ports can't deliver in time.

The stall of each port follows Mei et al., "A Uniform Latency Model for DNN Accelerators with Diverse Architectures and
Dataflows" (DATE 2022): a transfer may use the whole period of its tile where the memory has room for a second one, else only
the part in which the old tile is no longer needed; transfers that share a port share the union of their windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.cost.allocation import Allocation, Bools, Nests
from pipeline.cost.hardware import OPERANDS, Hardware, Move, Operand, Port
from pipeline.cost.loopnest import Floats
from pipeline.cost.traffic import OperandTraffic, Transfer, _trailing

Key = tuple[Operand, int, Move]


def cycles(
    hardware: Hardware,
    nests: Nests,
    allocation: Allocation,
    exact: dict[Operand, OperandTraffic],
    whole: dict[Operand, OperandTraffic],
    moved: Sequence[Transfer],
) -> Floats:
    """(n, p) cycles of each layer in each order.

    Args:
        hardware, nests, allocation: the design and the mappings.
        exact: traffic by average use, for how full the memories are.
        whole: traffic by whole units.
        moved: every transfer, by whole units.
    """
    doubled = _doubled(hardware, nests, allocation, exact)
    ports: dict[tuple[str, str], list[Transfer]] = {}
    for transfer in moved:
        ports.setdefault((transfer.memory.name, transfer.port.name), []).append(transfer)
    total = nests.steps[:, :, -1]
    stall = np.zeros(total.shape)
    for group in ports.values():
        stall = np.maximum(stall, _port_stall(group, [_allowed(t, doubled) for t in group], total))
    loading = {}
    for group in ports.values():
        loading.update(_loading(group, whole, total + stall))
    drain = np.zeros(len(total))
    for name in hardware.array.systolic:
        d = list(hardware.array.dimensions).index(name)
        drain += np.maximum(np.ceil(nests.unrolling.planned[:, d].prod(axis=1)) - 1, 0)
    return (
        total
        + stall
        + _onloading(hardware, loading)
        + _offloading(hardware, loading)
        + drain[:, None]
    )


def _doubled(
    hardware: Hardware, nests: Nests, allocation: Allocation, exact: dict[Operand, OperandTraffic]
) -> dict[Operand, list[Bools]]:
    """For level -1 and each memory of each operand: (n, p) whether there is room for the next tile beside this one."""
    shape = nests.steps.shape[:2]
    own: dict[tuple[Operand, str], Floats] = {}
    shared: dict[str, Floats] = {}
    for operand in OPERANDS:
        kept = _trailing(nests.relevant[operand], allocation.ends[operand], nests.steps)
        for m, memory in enumerate(hardware.levels(operand)):
            bits = exact[operand].tiles[m + 1] * exact[operand].bits[m + 1]
            share = np.floor(bits / kept[m]) / memory.size_bits
            own[operand, memory.name] = share
            shared[memory.name] = shared.get(memory.name, np.zeros(shape)) + share
    doubled: dict[Operand, list[Bools]] = {}
    for operand in OPERANDS:
        doubled[operand] = [np.zeros(shape, dtype=bool)]
        for memory in hardware.levels(operand):
            mine, all_of_it = own[operand, memory.name], shared[memory.name]
            half = all_of_it <= 0.5
            squeezed = ~half & (mine <= 1 - all_of_it)
            doubled[operand].append(half | squeezed)
            if len(memory.operands) > 1:
                shared[memory.name] = all_of_it + np.where(squeezed, mine, 0)
    return doubled


def _allowed(transfer: Transfer, doubled: dict[Operand, list[Bools]]) -> Floats:
    """(n, p) cycles of each period in which the transfer may happen."""
    level = transfer.level + (transfer.move in ("to_higher", "from_higher"))
    part = np.floor(transfer.period / transfer.reuse + 1e-9)
    return np.where(doubled[transfer.operand][level], transfer.period, part)


def _port_stall(group: list[Transfer], allowed: list[Floats], total: Floats) -> Floats:
    """(n, p) cycles that the multipliers wait for one port; negative never, slack is not handed on."""
    late, slack, windows = np.zeros(total.shape), np.zeros(total.shape), np.zeros(total.shape)
    for transfer, window in zip(group, allowed, strict=True):
        rounds = np.where(transfer.active, transfer.count - 1, 0)
        over = (transfer.cycles - window) * rounds
        late += np.maximum(over, 0)
        slack += np.minimum(over, 0)
        windows += window * rounds
    if len(group) == 1:
        return late
    union = _union(
        [np.where(t.active, t.period, 1) for t in group],
        [np.where(t.active, window, 0) for t, window in zip(group, allowed, strict=True)],
        total,
    )
    return late + np.maximum(0, slack + windows - union)


def _union(periods: list[Floats], windows: list[Floats], total: Floats) -> Floats:
    """(n, p) cycles of ``total`` inside any window; window i opens each period i for its first cycles.

    Periods divide one another. ``free[i]`` counts the cycles of period i outside windows 0 to i, ``busy[i]`` those of window i
    outside windows 0 to i - 1.
    """
    order = np.argsort(np.stack(periods), axis=0, kind="stable")
    sorted_periods = np.take_along_axis(np.stack(periods), order, axis=0)
    sorted_windows = np.take_along_axis(np.stack(windows), order, axis=0)
    free: list[Floats] = []
    busy: list[Floats] = []

    def outside(length: Floats, count: int) -> Floats:
        """Cycles of the first ``length`` outside windows 0 to count - 1."""
        rests, whole = [length], []
        for j in reversed(range(count)):
            times = np.floor(rests[-1] / sorted_periods[j])
            whole.append(times)
            rests.append(rests[-1] - times * sorted_periods[j])
        result = rests[-1]
        for j, times in zip(range(count), reversed(whole), strict=True):
            result = times * free[j] + np.maximum(0, result - busy[j])
        return result

    for i in range(len(periods)):
        busy.append(outside(sorted_windows[i], i))
        below = (
            sorted_periods[i] if i == 0 else sorted_periods[i] / sorted_periods[i - 1] * free[i - 1]
        )
        free.append(below - busy[i])
    return total - total / sorted_periods[-1] * free[-1]


@dataclass(frozen=True)
class _Load:
    cycles: Floats
    shared: bool


def _loading(
    group: list[Transfer], whole: dict[Operand, OperandTraffic], computing: Floats
) -> dict[Key, _Load]:
    """Cycles before the first step and after the last one that each transfer of a port takes.

    What is loaded once may use the port's spare bandwidth during the computation, down to the innermost tile.
    """
    group = [t for t in group if t.operand != "O" or t.move in ("from_lower", "to_higher")]
    if not group:
        return {}
    port = group[0].port
    needed = np.zeros(computing.shape)
    for transfer in group:
        mean = np.floor(transfer.elements * transfer.bits / transfer.period + 1e-9)
        needed += np.where(transfer.count > 1, mean, 0)
    spare = np.maximum(0, (port.max_bits - needed) / port.max_bits * computing)
    once = np.stack([t.count == 1 for t in group])
    full = np.stack([t.cycles for t in group])
    least = np.stack(
        [
            np.ceil(whole[t.operand].tiles[1] * whole[t.operand].bits[1] / port.max_bits)
            for t in group
        ]
    )
    order = np.argsort(-np.where(once, full, -1), axis=0, kind="stable")
    left = full.copy()
    for rank in range(len(group)):
        which = order[rank][None]
        room = np.maximum(0, np.take_along_axis(full - least, which, axis=0)[0])
        room = np.where(np.take_along_axis(once, which, axis=0)[0], room, 0)
        cut = np.minimum(room, spare)
        spare = spare - cut
        np.put_along_axis(left, which, np.take_along_axis(left, which, axis=0) - cut[None], axis=0)
    shared = _serves_both_inputs(port)
    return {(t.operand, t.level, t.move): _Load(left[i], shared) for i, t in enumerate(group)}


def _serves_both_inputs(port: Port) -> bool:
    return {operand for operand, _ in port.moves} >= {"W", "I"}


def _onloading(hardware: Hardware, loading: dict[Key, _Load]) -> Floats:
    """(n, p) cycles until the first tiles are at the multipliers; what shares ports at both ends comes in turn."""
    separate: dict[Operand, Floats | float] = {"W": 0.0, "I": 0.0}
    half: dict[Operand, Floats | float] = {"W": 0.0, "I": 0.0}
    shared: dict[Operand, Floats | float] = {"W": 0.0, "I": 0.0}
    for operand in separate:
        for m in range(len(hardware.levels(operand)) - 1):
            into, out_of = loading[operand, m, "from_higher"], loading[operand, m + 1, "to_lower"]
            longest = np.maximum(into.cycles, out_of.cycles)
            if into.shared and out_of.shared:
                shared[operand] = shared[operand] + longest
            elif into.shared or out_of.shared:
                half[operand] = longest
            else:
                separate[operand] = separate[operand] + longest
    weights_first = shared["W"] + np.maximum(
        shared["I"] + half["I"] + separate["I"], half["W"] + separate["W"]
    )
    inputs_first = shared["I"] + np.maximum(
        shared["W"] + half["W"] + separate["W"], half["I"] + separate["I"]
    )
    return np.asarray(np.minimum(weights_first, inputs_first))


def _offloading(hardware: Hardware, loading: dict[Key, _Load]) -> Floats | float:
    """(n, p) cycles after the last step until the results are in the outermost memory."""
    total: Floats | float = 0.0
    for m in range(len(hardware.levels("O")) - 1):
        out_of, into = loading["O", m, "to_higher"], loading["O", m + 1, "from_lower"]
        total = total + np.maximum(out_of.cycles, into.cycles)
    return total
