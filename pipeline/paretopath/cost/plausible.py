"""Magnitudes that hardware can have: a number outside them was meant in another unit."""

from collections.abc import Sequence
from dataclasses import dataclass

from pydantic import AfterValidator


@dataclass(frozen=True)
class Range:
    """What is plausible of a number, generously.

    Attributes:
        least, most: of a number in ``unit``; 0 is plausible too where it is legal.
        unit: what it is stored in.
        others: units that are taken for it by mistake, with their size in it.
    """

    least: float
    most: float
    unit: str
    others: Sequence[tuple[str, float]] = ()

    def fault(self, value: float, *, what: str = "") -> str | None:
        """What is wrong with a number, as the end of a sentence about its field; None if nothing.

        Args:
            value: in ``unit``.
            what: of what it is so much: ``a bit``.
        """
        if value == 0 or self.least <= value <= self.most:
            return None
        unit = f"{self.unit} {what}".rstrip()
        meant = [
            f"in {name} it would be {value * size:.6g} {unit}"
            for name, size in self.others
            if self.least <= value * size <= self.most
        ]
        hint = f"; {meant[0]}" if meant else ""
        return f"must be {self.least:g} to {self.most:g} {unit}, but got {value:.10g}{hint}"


_FROM_PICOJOULES = (("fJ", 1e-3), ("nJ", 1e3), ("µJ", 1e6), ("mJ", 1e9), ("J", 1e12))

CLOCK = Range(1, 2e4, "MHz", (("Hz", 1e-6), ("kHz", 1e-3), ("GHz", 1e3)))
# Horowitz (ISSCC 2014) has 0.03 pJ for an 8-bit addition and 3.1 pJ for a 32-bit product in 45 nm.
OPERATION = Range(1e-3, 20, "pJ", _FROM_PICOJOULES)
# Of a bit: registers take some 0.001 pJ, on-chip memories up to 0.4, DRAM from 1 (stacked) to 40.
ON_CHIP_BIT = Range(1e-5, 10, "pJ", _FROM_PICOJOULES)
DRAM_BIT = Range(0.1, 500, "pJ", _FROM_PICOJOULES)
BANDWIDTH = Range(1, 2**20, "bits a cycle")
ON_CHIP_SIZE = Range(1, 1e12, "bits")
DRAM_SIZE = Range(1e5, 1e15, "bits", (("kB", 8e3), ("MB", 8e6), ("GB", 8e9)))
COUNT = Range(1, 1e6, "units")
GUARD = Range(1, 64, "bits")


def plausible(allowed: Range) -> AfterValidator:
    """A field's check against a range."""

    def check(value: float) -> float:
        fault = allowed.fault(value)
        if fault is not None:
            raise ValueError(fault)
        return value

    return AfterValidator(check)
