"""A scatter plot with logarithmic axes as SVG: text, so that it can be read in a diff."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from math import ceil, floor, log10

COLOURS = (
    "#4477aa",
    "#ee6677",
    "#228833",
    "#ccbb44",
    "#66ccee",
    "#aa3377",
)  # Paul Tol's bright scheme
SIZE, MARGIN = 320, 56


@dataclass(frozen=True)
class Panel:
    """One plot.

    Attributes:
        title: above it, with the unit.
        x_label, y_label: along the axes.
        series: by name, x and y of its points, all positive.
    """

    title: str
    x_label: str
    y_label: str
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]]


def draw(panels: Sequence[Panel]) -> str:
    """Panels side by side, each with the diagonal on which x equals y."""
    width, height = len(panels) * (SIZE + 2 * MARGIN), SIZE + 2 * MARGIN + 24
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" '
        f'height="{height}" font-family="sans-serif" font-size="12">',
        f'<rect width="{width}" height="{height}" fill="white"/>',
    ]
    for i, panel in enumerate(panels):
        parts.append(f'<g transform="translate({i * (SIZE + 2 * MARGIN) + MARGIN},{MARGIN})">')
        parts += _panel(panel)
        parts.append("</g>")
    parts += _legend(list(panels[0].series), height - 12)
    return "\n".join([*parts, "</svg>"]) + "\n"


def _panel(panel: Panel) -> list[str]:
    values = [v for xs, ys in panel.series.values() for v in (*xs, *ys)]
    low, high = floor(log10(min(values))), ceil(log10(max(values)))

    def place(value: float) -> float:
        return (log10(value) - low) / (high - low) * SIZE

    parts = [
        f'<text x="{SIZE / 2}" y="-14" text-anchor="middle">{escape(panel.title)}</text>',
        f'<rect width="{SIZE}" height="{SIZE}" fill="none" stroke="#999"/>',
        f'<line x1="0" y1="{SIZE}" x2="{SIZE}" y2="0" stroke="#bbb"/>',
        f'<text x="{SIZE / 2}" y="{SIZE + 38}" text-anchor="middle">{escape(panel.x_label)}</text>',
        f'<text transform="translate(-40,{SIZE / 2}) rotate(-90)" text-anchor="middle">'
        f"{escape(panel.y_label)}</text>",
    ]
    for power in range(low, high + 1):
        at = place(10.0**power)
        label = f'10<tspan dy="-5" font-size="9">{power}</tspan>'
        parts.append(f'<text x="{at:.1f}" y="{SIZE + 18}" text-anchor="middle">{label}</text>')
        parts.append(f'<text x="-8" y="{SIZE - at + 4:.1f}" text-anchor="end">{label}</text>')
    for colour, (xs, ys) in zip(COLOURS, panel.series.values(), strict=False):
        for x, y in zip(xs, ys, strict=True):
            parts.append(
                f'<circle cx="{place(x):.1f}" cy="{SIZE - place(y):.1f}" r="3" fill="none" '
                f'stroke="{colour}"/>'
            )
    return parts


def _legend(names: Sequence[str], y: float) -> list[str]:
    parts, x = [], float(MARGIN)
    for colour, name in zip(COLOURS, names, strict=False):
        parts.append(f'<circle cx="{x}" cy="{y - 4}" r="4" fill="none" stroke="{colour}"/>')
        parts.append(f'<text x="{x + 9}" y="{y}">{escape(name)}</text>')
        x += 30 + 7.5 * len(name)
    return parts
