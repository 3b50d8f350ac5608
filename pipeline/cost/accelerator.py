"""The analytic accelerator: the best mapping of each layer, found for all layers at once with NumPy.

A layer runs in the loop order that costs least, among all orders of its loops' factors; the memories' capacities turn an
order into tiles. Energy is what every access of every memory costs; latency is the array's steps plus what the
ports can't deliver in time. Formulas follow ZigZag (Mei et al., "ZigZag: Enlarging Joint Architecture-Mapping
Design Space Exploration for DNN Accelerators", IEEE Trans. Computers 2021), which ``docs/cost_models.md`` compares with.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from pipeline.cost.allocation import allocate
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
from pipeline.cost.nests import Bools, Nests
from pipeline.cost.passes import MJ_PER_PJ, LevelCosts, price_passes
from pipeline.cost.timing import cycles
from pipeline.cost.traffic import follow, transfers
from pipeline.errors import HardwareError, InvalidValueError, nearest
from pipeline.tracing import Layer

Objective = Literal["each", "energy", "latency", "edp"]
OBJECTIVES: tuple[Objective, ...] = ("each", "energy", "latency", "edp")
CELLS = 1 << 15  # (layer, order) pairs priced together: arrays that stay in a core's cache


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
            found = price_passes(self.design, [distinct[i] for i in passes])
            table[passes] = np.stack(
                [*found.energy_mj.values(), found.costs.latency_ms, found.costs.dram_bytes], axis=1
            )
        if nests:
            table[nests] = self._price_nests([distinct[i] for i in nests])
        table = table[[place[layer] for layer in layers]].reshape(-1, len(LEVELS) + 2)
        energy = {level: table[:, i] for i, level in enumerate(LEVELS)}
        costs = Costs(table[:, : len(LEVELS)].sum(axis=1), table[:, -2], table[:, -1])
        return LevelCosts(costs, energy)

    def _price_nests(self, layers: Sequence[Layer]) -> Floats:
        design = self.design
        work = Workload.of(layers)
        unrolling = unroll(design, work)
        table = np.full((len(layers), len(LEVELS) + 2), np.nan)
        for schedule in schedules(
            _steps(unrolling, work), max_factors=self.max_factors, max_cells=CELLS
        ):
            rows = schedule.rows
            table[rows] = self._best(
                work.take(rows), unrolling.take(rows), schedule
            )
        unfit = np.flatnonzero(np.isnan(table[:, 0]))
        if len(unfit):
            raise HardwareError(f"{design.name} can't hold the tiles of {layers[unfit[0]]}")
        return table

    def _best(
        self, work: Workload, unrolling: Unrolling, schedule: Schedules
    ) -> Floats:
        """(n, levels + 2) costs of each layer in its best order."""
        design = self.design
        nests = Nests.build(design, work, unrolling, schedule)
        allocation = allocate(design, nests)
        exact = {operand: follow(nests, allocation, operand, whole=False) for operand in OPERANDS}
        whole = exact
        if not np.array_equal(unrolling.exact, unrolling.whole):
            whole = {operand: follow(nests, allocation, operand, whole=True) for operand in OPERANDS}
        spent = {level: np.zeros(len(nests.total)) for level in LEVELS}
        dram_bytes = np.zeros(len(nests.total))
        moved = {o: list(transfers(design, nests, o, exact[o])) for o in OPERANDS}
        for operand in OPERANDS:
            for transfer in moved[operand]:
                memory = transfer.memory
                count = transfer.words(exact[operand].instances[transfer.level])
                reading = transfer.move in ("to_lower", "to_higher")
                each = memory.read_energy_pj if reading else memory.write_energy_pj
                spent[memory.level] += count * each
                if memory is design.outermost:
                    dram_bytes += count * transfer.port.max_bits / 8
        macs = work.sizes.prod(axis=1) * (work.bits / 8) ** 2
        spent["mac"] += nests.cells(design.array.mac_energy_pj * macs)
        if whole is not exact:
            moved = {o: list(transfers(design, nests, o, whole[o])) for o in OPERANDS}
        everything = [transfer for operand in OPERANDS for transfer in moved[operand]]
        latency = cycles(design, nests, allocation, exact, whole, everything)
        columns = [
            *(spent[level] * MJ_PER_PJ for level in LEVELS),
            latency / design.clock_mhz * 1e-3,
            dram_bytes,
        ]
        shape = (nests.layers, -1)
        table = np.stack([column.reshape(shape) for column in columns])
        return self._choose(table, allocation.fits.reshape(shape))

    def _choose(self, table: Floats, fits: Bools) -> Floats:
        """The (n, columns) costs of the best order among (columns, n, p); NaN where none fits."""
        energy = np.where(fits, table[: len(LEVELS)].sum(axis=0), np.inf)
        latency = np.where(fits, table[-2], np.inf)
        first, second = {
            "each": (energy, latency),
            "energy": (energy, latency),
            "latency": (latency, energy),
            "edp": (energy * latency, energy),
        }[self.objective]
        best = np.argmin(np.where(first <= first.min(axis=1, keepdims=True), second, np.inf), axis=1)
        chosen = table[:, np.arange(len(best)), best].T
        if self.objective == "each":
            chosen[:, -2] = latency.min(axis=1)
        chosen[~fits.any(axis=1)] = np.nan
        return chosen


def _steps(unrolling: Unrolling, work: Workload) -> Floats:
    """(n, 8) iterations of each loop left in time."""
    steps = work.sizes
    for d in range(unrolling.exact.shape[1]):
        steps = np.ceil(steps / unrolling.exact[:, d] - 1e-9)
    return np.maximum(steps, 1)
