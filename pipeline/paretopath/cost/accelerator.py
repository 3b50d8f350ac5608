"""The analytic accelerator: the best mapping of each layer, found for all layers at once by NumPy.

A layer runs in the order of its loops that costs least; the memories' capacities turn an order into
tiles. Energy is what every access of every memory costs; latency is the array's steps plus what the
ports can't deliver in time. The physics is ZigZag's (Mei et al., "ZigZag: Enlarging Joint
Architecture-Mapping Design Space Exploration for DNN Accelerators", IEEE Transactions on Computers
2021): ``docs/cost_models.md`` compares the two.
"""

from collections.abc import Sequence
from typing import Literal

import numpy as np

from paretopath.cost.allocation import allocate
from paretopath.cost.fitting import why_unfit
from paretopath.cost.hardware import LEVELS, OPERANDS, READS, Floats, Hardware
from paretopath.cost.loopnest import Unrolling, Workload, unroll
from paretopath.cost.model import Costs, LayerCostModel, UnfitLayerError
from paretopath.cost.nests import Bools, Nests
from paretopath.cost.orders import MAX_FACTORS, Schedules, schedules
from paretopath.cost.passes import MJ_PER_PJ, LevelCosts, price_passes
from paretopath.cost.timing import cycles
from paretopath.cost.traffic import follow, transfers
from paretopath.errors import InvalidValueError, nearest
from paretopath.progress import Progress, unheard
from paretopath.tracing import Layer

Objective = Literal["each", "energy", "latency", "edp"]
OBJECTIVES: tuple[Objective, ...] = ("each", "energy", "latency", "edp")
CELLS = (
    1 << 13
)  # (layer, order) pairs priced together: few enough that arrays stay in a core's cache
_COLUMNS = len(LEVELS) + 2  # energy of each level, latency, DRAM bytes


class AcceleratorModel(LayerCostModel):
    """Prices layers on an accelerator.

    Args:
        design: the accelerator.
        objective: what mappings are chosen for. ``each``: energy is that of the mapping that takes
            least energy and latency that of the fastest one, the least that any mapping reaches in
            each; ``energy``, ``latency`` and ``edp`` (their product) report one mapping.
        max_factors: factors that a layer's loops are cut into; more try more tilings, and take
            factorially longer.
        progress: told (layer shapes priced, shapes to price), if there are new ones.
    """

    def __init__(
        self,
        design: Hardware,
        *,
        objective: Objective = "each",
        max_factors: int = MAX_FACTORS,
        progress: Progress = unheard,
    ) -> None:
        check_objective(objective)
        if not 1 <= max_factors <= 8:
            raise InvalidValueError(f"max_factors must be 1 to 8, got {max_factors}")
        self.design = design
        self.objective = objective
        self.max_factors = max_factors
        self.progress = progress
        self._priced: dict[bytes, Floats] = {}  # a layer's row of the workload -> its row of costs

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
        table = np.zeros((len(layers), _COLUMNS))
        is_pass = np.array([layer.is_pass for layer in layers], dtype=bool)
        if is_pass.any():
            found = price_passes(self.design, [layer for layer in layers if layer.is_pass])
            table[is_pass] = np.stack(
                [*found.energy_mj.values(), found.costs.latency_ms, found.costs.dram_bytes], axis=1
            )
        if not is_pass.all():
            work = Workload.of([layer for layer in layers if not layer.is_pass])
            table[~is_pass] = self._price_distinct(work)
        unfit = np.flatnonzero(np.isnan(table[:, 0]))
        if len(unfit):
            layer = layers[unfit[0]]
            raise UnfitLayerError(
                f"{self.design.name} can't run the {layer}: {why_unfit(self.design, layer)}",
                int(unfit[0]),
            )
        energy = {level: table[:, i] for i, level in enumerate(LEVELS)}
        costs = Costs(table[:, : len(LEVELS)].sum(axis=1), table[:, -2], table[:, -1])
        return LevelCosts(costs, energy)

    def _price_distinct(self, work: Workload) -> Floats:
        """(n, columns) costs, of which those of shapes never met before are computed."""
        shapes, inverse = np.unique(work.table, axis=0, return_inverse=True)
        keys = [shape.tobytes() for shape in shapes]
        new = [i for i, key in enumerate(keys) if key not in self._priced]
        if new:
            costs = self._price_nests(Workload(shapes[new]))
            self._priced.update(zip([keys[i] for i in new], costs, strict=True))
        return np.stack([self._priced[key] for key in keys])[inverse.reshape(-1)]

    def _price_nests(self, work: Workload, *, evenly: bool = False) -> Floats:
        """(n, columns) costs; NaN where no mapping fits.

        Tiles that take what they can of inner memories may together be too much for one further out
        that they share; layers that have no other mapping are mapped to even shares of it.
        """
        designs, layers = [*self.design.variants()], len(work.table)
        variants, done = [], 0
        for design in designs:
            unrolling = unroll(design, work)
            table = np.full((layers, _COLUMNS), np.nan)
            for batch in schedules(work, unrolling, max_factors=self.max_factors, max_cells=CELLS):
                rows = batch.rows
                self.progress(done // len(designs), layers)
                done += len(rows)
                costs, fits = _evaluate(
                    design, work.take(rows), unrolling.take(rows), batch, evenly=evenly
                )
                table[rows] = self._best(costs, fits)
            variants.append(table)
        self.progress(layers, layers)
        tables = np.stack(variants, axis=2).transpose(1, 0, 2)
        best = self._best(tables, ~np.isnan(tables[0]))
        unfit = np.flatnonzero(np.isnan(best[:, 0]))
        if len(unfit) and not evenly:
            best[unfit] = self._price_nests(work.take(unfit), evenly=True)
        return best

    def _best(self, costs: Floats, fits: Bools) -> Floats:
        """(n, columns) the best of p mappings.

        Args:
            costs: (columns, n, p).
            fits: (n, p) which mappings can be run; NaN where none can.
        """
        energy = np.where(fits, costs[: len(LEVELS)].sum(axis=0), np.inf)
        latency = np.where(fits, costs[-2], np.inf)
        first, second = {
            "each": (energy, latency),
            "energy": (energy, latency),
            "latency": (latency, energy),
            "edp": (energy * latency, energy),
        }[self.objective]
        ties = first <= first.min(axis=1, keepdims=True)
        best = np.argmin(np.where(ties, second, np.inf), axis=1)
        chosen: Floats = costs[:, np.arange(len(best)), best].T
        if self.objective == "each":
            chosen[:, -2] = latency.min(axis=1)
        chosen[~fits.any(axis=1)] = np.nan
        return chosen


def check_objective(objective: str) -> None:
    """InvalidValueError unless it is one of :data:`OBJECTIVES`."""
    if objective not in OBJECTIVES:
        raise InvalidValueError(
            f"there is no objective {objective!r}; {nearest(objective, OBJECTIVES)}"
        )


def _evaluate(
    design: Hardware, work: Workload, unrolling: Unrolling, schedule: Schedules, *, evenly: bool
) -> tuple[Floats, Bools]:
    """Prices n layers in each of p orders; ``evenly``: see :func:`allocate`.

    Returns:
        (columns, n, p) costs, and (n, p) whether the order can be run.
    """
    nests = Nests.build(design, work, unrolling, schedule)
    allocation = allocate(design, nests, evenly=evenly)
    exact = {operand: follow(nests, allocation, operand, whole=False) for operand in OPERANDS}
    moved = [t for operand in OPERANDS for t in transfers(design, nests, operand, exact[operand])]
    spent = {level: np.zeros(len(nests.total)) for level in LEVELS}
    spent["mac"] += nests.cells(design.array.mac_energy_pj * _eight_bit_macs(work))
    dram_bytes = np.zeros(len(nests.total))
    for transfer in moved:
        memory = transfer.memory
        words = transfer.words(exact[transfer.operand].instances[transfer.level])
        reads = transfer.move in READS
        spent[memory.level] += words * (memory.read_energy_pj if reads else memory.write_energy_pj)
        if memory is design.outermost:
            dram_bytes += words * transfer.port.max_bits / 8
    whole = exact
    if not np.array_equal(unrolling.exact, unrolling.whole):
        whole = {operand: follow(nests, allocation, operand, whole=True) for operand in OPERANDS}
        moved = [t for o in OPERANDS for t in transfers(design, nests, o, whole[o])]
    latency_ms = cycles(design, nests, allocation, exact, whole, moved) / design.clock_mhz * 1e-3
    energy_mj = [spent[level] * MJ_PER_PJ for level in LEVELS]
    costs = np.stack([*energy_mj, latency_ms, dram_bytes])
    return costs.reshape(_COLUMNS, nests.layers, -1), allocation.fits.reshape(nests.layers, -1)


def _eight_bit_macs(work: Workload) -> Floats:
    """(n,) multiply-accumulates, each counted as the 8-bit ones that take its energy.

    A multiplier's energy grows with the product of its operands' widths: 0.2 pJ for 8 bits and
    3.1 pJ for 32 in 45 nm (Horowitz, "Computing's energy problem", ISSCC 2014).
    """
    macs: Floats = work.sizes.prod(axis=1) * work.bits["W"] * work.bits["I"] / 64
    return macs
