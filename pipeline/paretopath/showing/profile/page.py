"""A profile as one HTML file: shares side by side, to tell what makes the MACs from what makes the
time."""

import html
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

from paretopath.costs import COSTS, Cost
from paretopath.files import write_atomically
from paretopath.showing.breakdown import Row
from paretopath.showing.profile.content import Profile

if TYPE_CHECKING:
    import plotly.graph_objects as go

# Okabe & Ito's palette, which the colour-blind can tell apart (jfly.uni-koeln.de/color)
_KIND_COLOURS = {
    "convolution": "#0072B2",
    "linear": "#E69F00",
    "matmul": "#009E73",
    "normalisation": "#CC79A7",
    "other": "#8C8C8C",
}

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>Profile of path {path_id}</title>
<style>
body {{ font: 15px/1.5 system-ui, sans-serif; color: #1f2328; margin: 2rem auto; max-width: 1180px;
  padding: 0 1rem; }}
h1 {{ font-size: 1.5rem; margin: 0; }}
h2 {{ font-size: 1.15rem; margin: 2.2rem 0 .3rem; }}
p {{ color: #57606a; margin: .3rem 0; }}
table {{ border-collapse: collapse; font-variant-numeric: tabular-nums; margin-top: .6rem; }}
th, td {{ padding: .2rem .9rem; text-align: right; border-bottom: 1px solid #e4e7eb; }}
th:first-child, td:first-child {{ text-align: left; padding-left: 0; }}
td small {{ color: #57606a; display: inline-block; width: 3.6em; }}
tr.total td {{ font-weight: 600; border-top: 2px solid #1f2328; border-bottom: 0; }}
</style>
<script>{plotly}</script>
</head>
<body>
<h1>Where the costs of path {path_id} are</h1>
<p>On {hardware}, for one image: {totals}.</p>
{notes}
<h2>By kind of operator</h2>
<p>Each column is a whole, split by the operators that make it.</p>
{kinds_figure}
{kinds_table}
<h2>By unit</h2>
<p>Shares of the whole path, units in the order in which they run.</p>
{units_figure}
{units_table}
</body>
</html>
"""


def write_html(file: str | os.PathLike[str], profile: Profile) -> None:
    """Draws a profile into one file that holds everything, plotly.js included (about 5 MB)."""
    from plotly.offline import get_plotlyjs  # takes a second to import

    totals = (f"{cost.text(profile.total(cost.name))} of {cost.title}" for cost in COSTS)
    page = _PAGE.format(
        path_id=html.escape(profile.path_id),
        hardware=html.escape(profile.hardware),
        totals=", ".join(totals),
        notes="".join(f"<p>{html.escape(note)}</p>" for note in profile.notes),
        plotly=get_plotlyjs(),
        kinds_figure=_embedded(draw_kinds(profile)),
        kinds_table=_table(profile, profile.by_kind),
        units_figure=_embedded(draw_units(profile)),
        units_table=_table(profile, profile.by_unit),
    )
    write_atomically(file, page)


def draw_kinds(profile: Profile) -> "go.Figure":
    """A column for each cost, split by kind of operator."""
    import plotly.graph_objects as go

    shares = {cost.name: profile.shares(profile.by_kind, cost.name) for cost in COSTS}
    shown = [cost for cost in COSTS if shares[cost.name]]
    figure = go.Figure()
    for i, row in enumerate(profile.by_kind):
        found = [(shares[cost.name] or [])[i] for cost in shown]
        figure.add_bar(
            name=row.name,
            x=[_label(cost) for cost in shown],
            y=found,
            text=[f"{share:.0%}" if share >= 0.045 else "" for share in found],
            textposition="inside",
            insidetextanchor="middle",
            textangle=0,
            marker_color=_KIND_COLOURS[row.name],
            customdata=[cost.text(row.costs.get(cost.name)) for cost in shown],
            hovertemplate=f"{row.name}: %{{customdata}} (%{{y:.1%}})<extra>%{{x}}</extra>",
        )
    figure.update_layout(barmode="stack", bargap=0.35, **_layout(420))
    figure.update_layout(legend_traceorder="normal", uniformtext={"minsize": 11, "mode": "show"})
    figure.update_yaxes(tickformat=".0%", range=[0, 1])
    return figure


def draw_units(profile: Profile) -> "go.Figure":
    """For each unit, the shares of each cost side by side."""
    import plotly.graph_objects as go

    figure = go.Figure()
    for cost in COSTS:
        shares = profile.shares(profile.by_unit, cost.name)
        if shares:
            figure.add_bar(
                name=_label(cost),
                x=[row.name for row in profile.by_unit],
                y=shares,
                marker_color=cost.colour,
                customdata=[cost.text(row.costs.get(cost.name)) for row in profile.by_unit],
                hovertemplate=_label(cost) + ": %{customdata} (%{y:.1%})<extra>%{x}</extra>",
            )
    figure.update_layout(barmode="group", bargap=0.25, **_layout(440))
    figure.update_xaxes(tickangle=-45 if len(profile.by_unit) > 8 else 0, type="category")
    figure.update_yaxes(tickformat=".0%", rangemode="tozero")
    return figure


def _layout(height: int) -> dict[str, object]:
    return {
        "template": "plotly_white",
        "height": height,
        "margin": {"l": 55, "r": 10, "t": 50, "b": 30},
        "legend": {"orientation": "h", "y": 1.02, "yanchor": "bottom", "x": 0},
        "font": {"family": "system-ui, sans-serif", "size": 13},
    }


def _embedded(figure: "go.Figure") -> str:
    text: str = figure.to_html(
        full_html=False,
        include_plotlyjs=False,
        config={"displayModeBar": False, "responsive": True},
    )
    return text


def _table(profile: Profile, rows: Sequence[Row]) -> str:
    """Amounts and shares; the last line is the whole path, where the rows above add up to it."""
    shares = {cost.name: profile.shares(rows, cost.name) for cost in COSTS}
    shown = [cost for cost in COSTS if any(cost.name in row.costs for row in rows)]
    lines = ["<tr><th></th>" + "".join(f"<th>{_label(cost)}</th>" for cost in shown) + "</tr>"]
    for i, row in enumerate(rows):
        cells = []
        for cost in shown:
            found = shares[cost.name]
            share = f"<small>{found[i]:.1%}</small>" if found else "<small></small>"
            cells.append(f"<td>{cost.text(row.costs.get(cost.name))} {share}</td>")
        lines.append(f"<tr><td>{html.escape(row.name)}</td>{''.join(cells)}</tr>")
    totals = (
        f"<td>{cost.text(cost.combined(row.costs.get(cost.name) for row in rows))} "
        "<small></small></td>"
        for cost in shown
    )
    lines.append(f'<tr class="total"><td>all</td>{"".join(totals)}</tr>')
    return f"<table>{''.join(lines)}</table>"


def _label(cost: Cost) -> str:
    return cost.title[0].upper() + cost.title[1:]
