"""Quantities as people read and write them: ``12.3 µJ``, ``8ms``, ``256 kB``."""

from collections.abc import Mapping
from typing import Literal

Unit = Literal["mJ", "ms", "B", ""]
"""What numbers are stored in: millijoules, milliseconds, bytes, or a count."""

SCALES: Mapping[Unit, tuple[tuple[float, str], ...]] = {
    "mJ": ((1e3, "J"), (1.0, "mJ"), (1e-3, "µJ"), (1e-6, "nJ")),
    "ms": ((1e3, "s"), (1.0, "ms"), (1e-3, "µs"), (1e-6, "ns")),
    "B": ((1e9, "GB"), (1e6, "MB"), (1e3, "kB"), (1.0, "B")),
    "": ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, "")),
}
"""For each stored unit, those that people read, largest first, with their size in it."""

UNKNOWN = "–"


def quantity(value: float | None, unit: Unit, *, digits: int = 3) -> str:
    """A number with a few significant digits in the unit that suits it; ``–`` for None and NaN.

    Args:
        value: in ``unit``. A whole count below 1000 has no decimals.
        unit: what it is stored in.
        digits: how many significant ones.
    """
    if value is None or value != value:
        return UNKNOWN
    if value == 0:
        return f"0 {unit}".rstrip()
    scales = SCALES[unit]
    size, name = next((s for s in scales if abs(value) >= s[0] * 0.9995), scales[-1])
    scaled = value / size
    if abs(scaled) < 0.1:  # less than the smallest unit has a word for
        return f"{scaled:.{digits}g} {name}".rstrip()
    is_count = unit in ("", "B") and size == 1 and scaled == int(scaled)
    decimals = 0 if is_count else max(0, digits - len(str(int(abs(scaled) + 0.0005))))
    return f"{scaled:.{decimals}f} {name}".rstrip()


def told_apart(first: float, second: float, unit: Unit) -> tuple[str, str]:
    """Two numbers with as many digits, from three up, as it takes to see which is larger."""
    pair = quantity(first, unit), quantity(second, unit)
    for digits in range(4, 17):
        if pair[0] != pair[1]:
            break
        pair = quantity(first, unit, digits=digits), quantity(second, unit, digits=digits)
    return pair


def percent(value: float | None, error: float | None = None) -> str:
    """A share in per cent, with its standard error if there is one: ``97.2 ± 0.7 %``."""
    if value is None:
        return UNKNOWN
    return f"{100 * value:.1f}" + (f" ± {100 * error:.1f} %" if error is not None else " %")


def words(name: str) -> str:
    """A name that recipes have, as people read it: ``closed form``."""
    return name.replace("_", " ")


def counted(number: int, noun: str) -> str:
    """A number of things: ``1 path``, ``2 paths``."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
