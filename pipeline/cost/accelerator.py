"""The analytic accelerator: the best mapping of each layer, found for all layers at once with NumPy.

A layer runs in the loop order that costs least, among all orders of its loops' factors; the memories' capacities turn an
order into tiles. Energy is what every access of every memory costs; latency is the array's steps plus what the
ports can't deliver in time. Formulas follow ZigZag (Mei et al., "ZigZag: Enlarging Joint Architecture-Mapping
Design Space Exploration for DNN Accelerators", IEEE Trans. Computers 2021), which ``docs/cost_models.md`` compares with.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pipeline.cost.allocation import Nests, allocate
from pipeline.cost.hardware import LEVELS, OPERANDS, Hardware
from pipeline.cost.loopnest import (
    MAX_FACTORS,
    Floats,
    Schedules,
    Unrolling,
    Workload,
    schedules,
    unroll,
)
from pipeline.cost.model import Costs, LayerCostModel
from pipeline.cost.timing import cycles
from pipeline.cost.traffic import follow, transfers, words
from pipeline.errors import HardwareError, InvalidValueError, nearest
from pipeline.tracing import Layer

Objective = Literal["each", "energy", "latency", "edp"]
OBJECTIVES: tuple[Objective, ...] = ("each", "energy", "latency", "edp")
CELLS = 1 << 15  # (layer, order) pairs priced together: arrays that stay in a core's cache
MJ_PER_PJ = 1e-9


@dataclass(frozen=True)
class LevelCosts:
    """Costs of n layers with the energy of each level.

    Attributes:
        costs: their sums.
        energy_mj: for each of :data:`~pipeline.cost.hardware.LEVELS`, (n,) millijoules.
    """

    costs: Costs
    energy_mj: dict[str, Floats]


class AcceleratorModel(LayerCostModel):
    """Prices layers on an accelerator.

    Args:
        design: the accelerator.
        objective: what mappings are chosen for. ``each``: energy is that of the mapping that takes least energy and
            latency that of the fastest mapping, which bound what any mapping can reach; ``energy``, ``latency`` and ``edp``
            (energy times latency) report one mapping.
        max_factors: factors that a layer's loops are cut into; more try more tilings, and take factorially longer.
    """

    def __init__(
        self, design: Hardware, *, objective: Objective = "each", max_factors: int = MAX_FACTORS
    ) -> None:
        if objective not in OBJECTIVES:
            raise InvalidValueError(
                f"there is no objective {objective!r}; {nearest(objective, OBJECTIVES)}"
            )
        self.design = design
        self.objective = objective
        self.max_factors = max_factors

    @property
    def hardware(self) -> str:
        """The design's name."""
        return self.design.name

    def price(self, layers: Sequence[Layer]) -> Costs:
        """The costs of each layer, in order.

        Raises:
            HardwareError: a layer that does not fit into the design's memories.
        """
        return self.price_by_level(layers).costs

    def price_by_level(self, layers: Sequence[Layer]) -> LevelCosts:
        """The costs of each layer, and its energy at each level, in order."""
        distinct = list(dict.fromkeys(layers))
        place = {layer: i for i, layer in enumerate(distinct)}
        table = np.zeros(
            (len(distinct), len(LEVELS) + 2)
        )  # energy of each level, latency, DRAM bytes
        passes = [i for i, layer in enumerate(distinct) if layer.is_pass]
        nests = [i for i, layer in enumerate(distinct) if not layer.is_pass]
        if passes:
            table[passes] = self._price_passes([distinct[i] for i in passes])
        if nests:
            table[nests] = self._price_nests([distinct[i] for i in nests])
        table = table[[place[layer] for layer in layers]].reshape(-1, len(LEVELS) + 2)
        energy = {level: table[:, i] for i, level in enumerate(LEVELS)}
        costs = Costs(table[:, : len(LEVELS)].sum(axis=1), table[:, -2], table[:, -1])
        return LevelCosts(costs, energy)

    def _price_nests(self, layers: Sequence[Layer]) -> Floats:
        design = self.design
        work = Workload.of(layers)
        partial_bits = 2 * work.bits + design.guard_bits
        unrolling = unroll(design, work, partial_bits)
        table = np.full((len(layers), len(LEVELS) + 2), np.nan)
        for schedule in schedules(
            _steps(unrolling, work), max_factors=self.max_factors, max_cells=CELLS
        ):
            rows = schedule.rows
            table[rows] = self._best(
                work.take(rows), unrolling.take(rows), schedule, partial_bits[rows]
            )
        unfit = np.flatnonzero(np.isnan(table[:, 0]))
        if len(unfit):
            raise HardwareError(f"{design.name} can't hold the tiles of {layers[unfit[0]]}")
        return table

    def _best(
        self, work: Workload, unrolling: Unrolling, schedule: Schedules, partial_bits: Floats
    ) -> Floats:
        """(n, levels + 2) costs of each layer in its best order."""
        design = self.design
        nests = Nests.build(design, work, unrolling, schedule)
        allocation = allocate(design, nests, partial_bits)
        exact = {
            o: follow(design, nests, allocation, o, partial_bits, whole=False) for o in OPERANDS
        }
        whole = {
            o: follow(design, nests, allocation, o, partial_bits, whole=True) for o in OPERANDS
        }
        shape = nests.steps.shape[:2]
        spent = {level: np.zeros(shape) for level in LEVELS}
        dram_bytes = np.zeros(shape)
        for operand in OPERANDS:
            for transfer in transfers(design, nests, operand, exact[operand]):
                memory = transfer.memory
                count = words(transfer, exact[operand].instances[transfer.level])
                reading = transfer.move in ("to_lower", "to_higher")
                spent[memory.level] += count * (
                    memory.read_energy_pj if reading else memory.write_energy_pj
                )
                if memory is design.outermost:
                    dram_bytes += count * transfer.port.max_bits / 8
        macs = work.sizes.prod(axis=1) * (work.bits / 8) ** 2
        spent["mac"] += (design.array.mac_energy_pj * macs)[:, None]
        moved = [t for o in OPERANDS for t in transfers(design, nests, o, whole[o])]
        latency = cycles(design, nests, allocation, exact, whole, moved)
        columns = [
            *(spent[level] * MJ_PER_PJ for level in LEVELS),
            latency / design.clock_mhz * 1e-3,
            dram_bytes,
        ]
        return self._choose(np.stack(columns, axis=2), allocation.fits)

    def _choose(self, table: Floats, fits: np.ndarray) -> Floats:  # type: ignore[type-arg]
        """The (n, columns) costs of the best order among (n, p, columns); NaN where none fits."""
        energy = np.where(fits, table[:, :, : len(LEVELS)].sum(axis=2), np.inf)
        latency = np.where(fits, table[:, :, -2], np.inf)
        first, second = {
            "each": (energy, latency),
            "energy": (energy, latency),
            "latency": (latency, energy),
            "edp": (np.where(fits, energy * latency, np.inf), energy),
        }[self.objective]
        best = _argmin(first, second)
        rows = np.arange(len(table))
        chosen = table[rows, best]
        if self.objective == "each":
            chosen[:, -2] = latency.min(axis=1)
        chosen[~fits.any(axis=1)] = np.nan
        return chosen

    def _price_passes(self, layers: Sequence[Layer]) -> Floats:
        """Passes stream through the vector unit: in from the outermost memory over the next one, and back."""
        design, unit = self.design, self.design.vector_unit
        bits = np.array([layer.bits for layer in layers], dtype=np.float64)
        fused = np.array([layer.operator in unit.fused for layer in layers])
        operations = np.array([layer.operations for layer in layers], dtype=np.float64)
        read = np.where(fused, 0, [layer.reads for layer in layers]) * bits
        written = np.where(fused, 0, [layer.writes for layer in layers]) * bits
        table = np.zeros((len(layers), len(LEVELS) + 2))
        table[:, LEVELS.index("vector")] = operations * unit.operation_energy_pj
        port_cycles: dict[tuple[str, str], Floats] = {}
        for operand, moved in (("I", read), ("O", written)):
            for memory in design.levels(operand)[-2:]:
                outer = memory is design.outermost
                crossings = (
                    [("from_higher", "w"), ("to_lower", "r")]
                    if operand == "I"
                    else [("from_lower", "w"), ("to_higher", "r")]
                )
                for move, way in (
                    crossings[1:] if outer and operand == "I" else crossings[: 1 if outer else 2]
                ):
                    port = memory.port(operand, move)
                    assert port is not None
                    accesses = np.ceil(moved / port.max_bits)
                    energy = memory.read_energy_pj if way == "r" else memory.write_energy_pj
                    table[:, LEVELS.index(memory.level)] += accesses * energy
                    key = (memory.name, port.name)
                    port_cycles[key] = port_cycles.get(key, np.zeros(len(layers))) + accesses
        busy = np.ceil(operations / unit.lanes)
        for accesses in port_cycles.values():
            busy = np.maximum(busy, accesses)
        table[:, : len(LEVELS)] *= MJ_PER_PJ
        table[:, -2] = busy / design.clock_mhz * 1e-3
        table[:, -1] = (read + written) / 8
        return table


def _steps(unrolling: Unrolling, work: Workload) -> Floats:
    """(n, 8) iterations of each loop left in time."""
    steps = work.sizes
    for d in range(unrolling.exact.shape[1]):
        steps = np.ceil(steps / unrolling.exact[:, d] - 1e-9)
    return np.maximum(steps, 1)


def _argmin(first: Floats, second: Floats) -> np.ndarray:  # type: ignore[type-arg]
    """(n,) index of the least ``first``; of equal ones, the least ``second``."""
    low = first.min(axis=1, keepdims=True)
    return np.argmin(np.where(first <= low, second, np.inf), axis=1)
