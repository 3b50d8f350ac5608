"""Numbers as people read them."""

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def quantity(value: float | None, unit: str) -> str:
    """A number with three significant digits and an SI prefix: ``12.3 µJ``; ``–`` for None.

    Args:
        value: in ``unit``.
        unit: ``mJ`` and ``ms`` count as thousandths of J and s; any other is taken as it is.
    """
    if value is None or value != value:
        return "–"
    if unit in ("mJ", "ms"):
        value, unit = value / 1e3, unit[1:]
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s * 0.9995), _PREFIXES[-1])
    if value == 0:
        return f"0 {unit}".rstrip()
    scaled = value / scale
    digits = max(0, 2 - len(str(int(abs(scaled)))) + 1)
    return f"{scaled:.{digits}f} {prefix}{unit}".rstrip()


def percent(value: float | None, error: float | None = None) -> str:
    """A share in per cent, with its standard error if there is one: ``97.2 ± 0.7 %``."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (f" ± {100 * error:.1f} %" if error is not None else " %")
