"""What a cost model is: layers or units in, energy, latency and traffic out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from paretopath.errors import HardwareError
from paretopath.tracing import Layer, UnitTrace

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Costs:
    """Costs of n things, each an array of shape (n,).

    Attributes:
        energy_mj: millijoules for a batch of one. NaN where it was not measured.
        latency_ms: milliseconds for a batch of one.
        dram_bytes: bytes moved to and from DRAM. NaN where it was not measured.
    """

    energy_mj: Floats
    latency_ms: Floats
    dram_bytes: Floats

    def __getitem__(self, name: str) -> Floats:
        column: Floats = getattr(self, name)
        return column

    def sum_by(self, counts: Sequence[int]) -> "Costs":
        """Sums over consecutive runs: ``counts[i]`` entries make entry i of the result."""
        owner = np.repeat(np.arange(len(counts)), counts)

        def total(column: Floats) -> Floats:
            # each sum on its own, so that equal units cost the same to the last bit
            sums = np.bincount(owner, weights=column, minlength=len(counts))
            return sums.astype(np.float64)  # whole numbers, where there is nothing to sum

        return Costs(total(self.energy_mj), total(self.latency_ms), total(self.dram_bytes))


class UnfitLayerError(HardwareError):
    """A layer that hardware can't run.

    Args:
        message: which, and why.
        index: its place among the layers to price.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


class CostModel(Protocol):
    """Prices units: all that a :class:`~paretopath.cost.table.CostTable` asks."""

    @property
    def hardware(self) -> str:
        """The hardware's name, for files and pictures."""
        ...

    def unit_costs(self, traces: Sequence[UnitTrace]) -> Costs:
        """The costs of each traced unit, in order."""
        ...


class LayerCostModel:
    """A cost model that knows layers alone: a unit costs the sum of its layers."""

    def price(self, layers: Sequence[Layer]) -> Costs:
        """The costs of each layer, in order."""
        raise NotImplementedError

    def unit_costs(self, traces: Sequence[UnitTrace]) -> Costs:
        """The costs of each traced unit, in order."""
        layers = [layer for trace in traces for layer in trace.layers]
        counts = [len(trace.layers) for trace in traces]
        try:
            return self.price(layers).sum_by(counts)
        except UnfitLayerError as error:
            owner = traces[int(np.searchsorted(np.cumsum(counts), error.index, side="right"))]
            raise HardwareError(f"unit {owner.unit.name!r}: {error}") from None
