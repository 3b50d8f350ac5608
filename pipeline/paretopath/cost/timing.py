"""How long a mapping takes: the multipliers' steps, and what the ports can't deliver in time.

Stalls follow Mei et al., "A Uniform Latency Model for DNN Accelerators with Diverse Architectures
and Dataflows" (DATE 2022): a transfer may use the whole period of its tile where the memory has
room for a second one, else only the part in which the old tile is no longer needed; transfers that
share a port share the union of their windows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretopath.cost.allocation import Allocation
from paretopath.cost.hardware import OPERANDS, Floats, Hardware, Move, Operand, Port
from paretopath.cost.loopnest import EPSILON
from paretopath.cost.nests import Bools, Nests, outermost_run
from paretopath.cost.traffic import OperandTraffic, Transfer

Key = tuple[Operand, int, Move]


@dataclass(frozen=True)
class _Load:
    cycles: Floats
    shared: bool  # whether the port serves both inputs and weights


def cycles(
    hardware: Hardware,
    nests: Nests,
    allocation: Allocation,
    exact: dict[Operand, OperandTraffic],
    whole: dict[Operand, OperandTraffic],
    moved: Sequence[Transfer],
) -> Floats:
    """(N,) cycles of each mapping.

    Args:
        hardware, nests, allocation: the design and the mappings.
        exact: traffic by average use, which says how full the memories are.
        whole: traffic by whole units.
        moved: every transfer, by whole units.
    """
    doubled = _doubled(hardware, nests, allocation, exact)
    ports: dict[tuple[str, str], list[Transfer]] = {}
    for transfer in moved:
        ports.setdefault((transfer.memory.name, transfer.port.name), []).append(transfer)
    stall = np.zeros(len(nests.total))
    for group in ports.values():
        windows = [_allowed(transfer, doubled) for transfer in group]
        stall = np.maximum(stall, _port_stall(group, windows, nests.total))
    loading: dict[Key, _Load] = {}
    for group in ports.values():
        loading.update(_loading(group, whole, nests.total + stall))
    drain = np.zeros(nests.layers)
    for name in hardware.array.systolic:  # the last results leave a cycle per unit later
        d = list(hardware.array.dimensions).index(name)
        drain += np.maximum(nests.planned[:, d] - 1, 0)
    before, after = _onloading(hardware, loading), _offloading(hardware, loading)
    return nests.total + stall + before + after + nests.cells(drain)


def _doubled(
    hardware: Hardware,
    nests: Nests,
    allocation: Allocation,
    exact: dict[Operand, OperandTraffic],
) -> dict[Operand, list[Bools]]:
    """For the multipliers and each memory, (N,) whether the next tile has room beside this one."""
    own: dict[tuple[Operand, str], Floats] = {}
    shared: dict[str, Floats] = {}
    for operand in OPERANDS:
        kept = outermost_run(nests.relevant[operand], allocation.ends[operand], nests.steps)
        for m, memory in enumerate(hardware.levels(operand)):
            bits = exact[operand].tiles[m + 1] * exact[operand].bits[m + 1]
            share = np.floor(bits / kept[m] + EPSILON) / memory.size_bits
            own[operand, memory.name] = share
            shared[memory.name] = shared.get(memory.name, 0.0) + share
    doubled: dict[Operand, list[Bools]] = {}
    for operand in OPERANDS:
        doubled[operand] = [np.zeros(len(nests.total), dtype=bool)]
        for memory in hardware.levels(operand):
            mine, everything = own[operand, memory.name], shared[memory.name]
            half = everything <= 0.5
            squeezed = ~half & (mine <= 1 - everything)
            doubled[operand].append(half | squeezed)
            if len(memory.operands) > 1:
                shared[memory.name] = everything + np.where(squeezed, mine, 0)
    return doubled


def _allowed(transfer: Transfer, doubled: dict[Operand, list[Bools]]) -> Floats:
    """(N,) cycles of each period in which the transfer may happen."""
    level = transfer.level + (transfer.move in ("to_higher", "from_higher"))
    part = np.floor(transfer.period / transfer.reuse + EPSILON)
    return np.where(doubled[transfer.operand][level], transfer.period, part)


def _port_stall(group: list[Transfer], windows: list[Floats], total: Floats) -> Floats:
    """(N,) cycles that the multipliers wait for one port; slack is not handed on."""
    late, slack, open_cycles = (np.zeros(len(total)) for _ in range(3))
    for transfer, window in zip(group, windows, strict=True):
        rounds = transfer.count - 1
        if transfer.active is not None:
            rounds = np.where(transfer.active, rounds, 0)
        over = (transfer.cycles - window) * rounds
        late += np.maximum(over, 0)
        slack += np.minimum(over, 0)
        open_cycles += window * rounds
    if len(group) == 1:
        return late
    union = _union(
        [t.period if t.active is None else np.where(t.active, t.period, 1) for t in group],
        [
            window if t.active is None else np.where(t.active, window, 0)
            for t, window in zip(group, windows, strict=True)
        ],
        total,
    )
    return late + np.maximum(0, slack + open_cycles - union)


def _union(periods: list[Floats], windows: list[Floats], total: Floats) -> Floats:
    """(N,) cycles of ``total`` inside any window; window i opens for the first cycles of period i.

    Periods divide one another. ``free[i]`` counts the cycles of period i outside windows 0 to i,
    ``busy[i]`` those of window i outside windows 0 to i - 1.
    """
    stacked = np.stack(periods)
    order = np.argsort(stacked, axis=0, kind="stable")
    stacked = np.take_along_axis(stacked, order, axis=0)
    opened = np.take_along_axis(np.stack(windows), order, axis=0)
    free: list[Floats] = []
    busy: list[Floats] = []

    def outside(length: Floats, count: int) -> Floats:
        """Cycles of the first ``length`` outside windows 0 to count - 1."""
        rest, whole = length, []
        for j in reversed(range(count)):
            times = np.floor(rest / stacked[j])
            whole.append(times)
            rest = rest - times * stacked[j]
        for j, times in zip(range(count), reversed(whole), strict=True):
            rest = times * free[j] + np.maximum(0, rest - busy[j])
        return rest

    for i in range(len(periods)):
        busy.append(outside(opened[i], i))
        below = stacked[0] if i == 0 else stacked[i] / stacked[i - 1] * free[i - 1]
        free.append(below - busy[i])
    outside_all: Floats = total / stacked[-1] * free[-1]
    return total - outside_all


def _loading(
    group: list[Transfer], whole: dict[Operand, OperandTraffic], computing: Floats
) -> dict[Key, _Load]:
    """Cycles that a port's transfers take before the first step and after the last one.

    What is loaded once may use the port's spare bandwidth during the computation, down to the
    innermost tile; the longest is spread first.
    """
    group = [t for t in group if t.operand != "O" or t.move in ("from_lower", "to_higher")]
    if not group:
        return {}
    port = group[0].port
    needed = np.zeros(len(computing))
    for transfer in group:
        mean = np.floor(transfer.elements * transfer.bits / transfer.period + EPSILON)
        needed += np.where(transfer.count > 1, mean, 0)
    spare = np.maximum(0, (port.max_bits - needed) / port.max_bits * computing)
    full = [t.cycles for t in group]
    room = []
    for transfer, length in zip(group, full, strict=True):
        least = np.ceil(
            whole[transfer.operand].tiles[1] * whole[transfer.operand].bits[1] / port.max_bits
        )
        room.append(np.where(transfer.count == 1, np.maximum(0, length - least), 0))
    left = _spread(full, room, spare, [t.count == 1 for t in group])
    shared = _serves_both_inputs(port)
    return {(t.operand, t.level, t.move): _Load(left[i], shared) for i, t in enumerate(group)}


def _spread(
    full: list[Floats], room: list[Floats], spare: Floats, once: list[Bools]
) -> Sequence[Floats]:
    """Shortens what is loaded once by what is spare: the longest first, each by its room."""
    if len(full) == 1:
        return [full[0] - np.minimum(room[0], spare)]
    stacked, rooms = np.stack(full), np.stack(room)
    order = np.argsort(-np.where(np.stack(once), stacked, -1), axis=0, kind="stable")
    sorted_rooms = np.take_along_axis(rooms, order, axis=0)
    taken = np.minimum(np.cumsum(sorted_rooms, axis=0), spare)
    cuts = np.diff(taken, axis=0, prepend=0)
    np.put_along_axis(rooms, order, cuts, axis=0)
    return list(stacked - rooms)


def _serves_both_inputs(port: Port) -> bool:
    return {operand for operand, _ in port.moves} >= {"W", "I"}


def _onloading(hardware: Hardware, loading: dict[Key, _Load]) -> Floats:
    """(N,) cycles until the first tiles are at the multipliers.

    What shares ports with the other operand at both ends comes in turn.
    """
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
    """(N,) cycles after the last step until the results are in the outermost memory."""
    total: Floats | float = 0.0
    for m in range(len(hardware.levels("O")) - 1):
        out_of, into = loading["O", m, "to_higher"], loading["O", m + 1, "from_lower"]
        total = total + np.maximum(out_of.cycles, into.cycles)
    return total
