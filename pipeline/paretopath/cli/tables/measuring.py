"""Where a path's cost goes, and measured paths beside what was predicted."""

from rich.table import Table

from paretopath.costs import COSTS
from paretopath.quantities import percent, quantity
from paretopath.showing.measure import Comparison
from paretopath.showing.profile import Profile


def profile_tables(profile: Profile) -> list[Table]:
    """A profile by kind of operator and by unit: amounts, and their shares of the path."""
    tables = []
    for title, rows in (("kind", profile.by_kind), ("unit", profile.by_unit)):
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(title, style="cyan", no_wrap=True)
        shown = [cost for cost in COSTS if cost.in_brief]
        for cost in shown:
            table.add_column(cost.title, justify="right", no_wrap=True)
            table.add_column("%", justify="right", style="dim", no_wrap=True)
        columns = []
        for cost in shown:
            amounts = [cost.text(row.costs.get(cost.name)) for row in rows]
            shares = profile.shares(rows, cost.name)
            columns += [
                [*amounts, cost.text(profile.total(cost.name))],
                [f"{100 * share:.1f}" for share in shares] if shares else ["–"] * len(rows),
            ]
            columns[-1].append("")
        labels = [*(row.name for row in rows), "all"]
        for i, label in enumerate(labels):
            table.add_row(label, *(column[i] for column in columns))
        tables.append(table)
    return tables


def measurement_tables(comparison: Comparison) -> list[Table]:
    """Measured paths beside what was predicted, and how well each prediction did."""
    paths = Table(box=None, header_style="bold", pad_edge=False)
    paths.add_column("path", style="cyan", no_wrap=True)
    for title in ("measured", "spread", "images/s", *(p.name for p in comparison.predictions)):
        paths.add_column(title, justify="right", no_wrap=True)
    for i, measured in enumerate(comparison.measurements):
        cells = [quantity(p.values[i], p.unit) for p in comparison.predictions]
        paths.add_row(
            measured.path_id,
            quantity(measured.latency_ms, "ms"),
            quantity(measured.spread_ms, "ms"),
            f"{measured.images_per_s:.1f}",
            *cells,
        )
    agreement = Table(box=None, header_style="bold", pad_edge=False)
    agreement.add_column("prediction", style="cyan")
    for title in ("rank correlation", "median error", "error after one factor"):
        agreement.add_column(title, justify="right")
    for found in comparison.agreements:
        error = percent(found.median_error)
        agreement.add_row(found.name, f"{found.spearman:.3f}", error, percent(found.scaled_error))
    return [paths, agreement]
