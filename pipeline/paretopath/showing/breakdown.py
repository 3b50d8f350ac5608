"""What a path takes, part by part, and on a device: rows that are shown, logged and published.

Whoever only shows them should not wait for torch to be imported.
"""

from dataclasses import dataclass
from typing import Literal

Quantity = Literal["macs", "energy_mj", "latency_ms", "params"]
QUANTITIES: tuple[Quantity, ...] = ("macs", "energy_mj", "latency_ms", "params")


@dataclass(frozen=True)
class Row:
    """What one kind of operator, or one unit, takes; for one image.

    Attributes:
        name: the kind or the unit.
        macs: multiply-accumulates.
        energy_mj: millijoules; None where the cost model does not say.
        latency_ms: milliseconds; None where the cost model does not say.
        params: weights and biases.
    """

    name: str
    macs: int
    energy_mj: float | None
    latency_ms: float | None
    params: int


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
