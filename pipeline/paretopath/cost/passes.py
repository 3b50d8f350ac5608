"""What has no multiply-accumulates: priced on a vector unit, with what it reads and writes.

Operators that the hardware applies to results on their way out of the array cost their operations
alone (``vector_unit.fused``), or also the reading of a second operand (``vector_unit.joined``: a
residual addition). Any other one streams its elements in from the outermost memory over the next
one, and back.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from paretopath.cost.hardware import LEVELS, READS, Floats, Hardware, Move, Operand
from paretopath.cost.model import Costs
from paretopath.tracing import Layer

MJ_PER_PJ = 1e-9


@dataclass(frozen=True)
class LevelCosts:
    """Costs of n layers with the energy of each level.

    Attributes:
        costs: their sums.
        energy_mj: for each of :data:`~paretopath.cost.hardware.LEVELS`, (n,) millijoules.
    """

    costs: Costs
    energy_mj: dict[str, Floats]


def price_passes(design: Hardware, layers: Sequence[Layer]) -> LevelCosts:
    """The costs of passes, in order.

    Args:
        design: the accelerator.
        layers: n passes.
    """
    unit = design.vector_unit
    bits = np.array([layer.activation_bits for layer in layers], dtype=np.float64)
    operations = np.array([layer.operations for layer in layers], dtype=np.float64)
    fused = np.array([layer.operator in unit.fused for layer in layers], dtype=bool)
    joined = np.array([layer.operator in unit.joined for layer in layers], dtype=bool)
    reads = np.array([layer.reads for layer in layers], dtype=np.float64)
    writes = np.array([layer.writes for layer in layers], dtype=np.float64)
    moved: dict[Operand, Floats] = {
        "I": np.where(fused, 0, np.where(joined, np.ceil(reads / 2), reads)) * bits,
        "O": np.where(fused | joined, 0, writes) * bits,
    }
    energy = {level: np.zeros(len(layers)) for level in LEVELS}
    energy["vector"] = operations * unit.operation_energy_pj * MJ_PER_PJ
    busy: dict[tuple[str, str], Floats] = {("vector", ""): np.ceil(operations / unit.lanes)}
    for operand, amount in moved.items():
        inward: tuple[Move, Move] = ("from_higher", "to_lower")
        outward: tuple[Move, Move] = ("from_lower", "to_higher")
        for memory in design.levels(operand)[-2:]:
            for move in inward if operand == "I" else outward:
                if memory is design.outermost and move in ("from_higher", "to_higher"):
                    continue
                port = memory.port(operand, move)
                assert port is not None
                accesses = np.ceil(amount / port.max_bits)
                each = memory.read_energy_pj if move in READS else memory.write_energy_pj
                energy[memory.level] = energy[memory.level] + accesses * each * MJ_PER_PJ
                key = (memory.name, port.name)
                busy[key] = busy.get(key, np.zeros(len(layers))) + accesses
    cycles = np.max(list(busy.values()), axis=0)
    total = np.sum(list(energy.values()), axis=0)
    dram_bytes = (moved["I"] + moved["O"]) / 8
    return LevelCosts(Costs(total, cycles / design.clock_mhz * 1e-3, dram_bytes), energy)
