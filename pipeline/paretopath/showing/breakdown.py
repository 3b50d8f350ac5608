"""What a path takes, part by part, and on a device: rows that are shown, logged and published.

Whoever only shows them should not wait for torch to be imported.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from paretopath.costs import CostName


@dataclass(frozen=True)
class Row:
    """What one kind of operator, or one unit, takes; for one image.

    Attributes:
        name: the kind or the unit.
        costs: those of :data:`~paretopath.costs.COSTS` that are known.
    """

    name: str
    costs: Mapping[CostName, float]


@dataclass(frozen=True)
class Measured:
    """What a device took for one image of one path.

    Attributes:
        path_id: which path.
        hardware: the device.
        batch_size: images at once.
        latency_ms: milliseconds.
        energy_mj: millijoules; None where the device does not report energy.
    """

    path_id: str
    hardware: str
    batch_size: int
    latency_ms: float
    energy_mj: float | None
