"""Where a path's cost goes, and measured paths beside what was predicted."""

from rich.table import Table

from paretopath.cli.tables.columns import ANY_WIDTH, Column, table_of
from paretopath.costs import COSTS
from paretopath.quantities import UNKNOWN, percent, quantity
from paretopath.showing.measure import Comparison
from paretopath.showing.profile import Profile


def profile_tables(profile: Profile, *, width: int = ANY_WIDTH) -> list[Table]:
    """A profile by kind of operator and by unit: amounts, and their shares of the path."""
    tables = []
    for title, rows in (("kind", profile.by_kind), ("unit", profile.by_unit)):
        labels = [*(row.name for row in rows), "all"]
        columns = [Column(title, labels, style="cyan", is_text=True)]
        for i, cost in enumerate(cost for cost in COSTS if cost.in_brief):
            amounts = [cost.text(row.costs.get(cost.name)) for row in rows]
            found = profile.shares(rows, cost.name)
            shares = [f"{100 * share:.1f}" for share in found] if found else [UNKNOWN] * len(rows)
            columns.append(Column(cost.title, [*amounts, cost.text(profile.total(cost.name))], i))
            columns.append(Column("%", [*shares, ""], i, style="dim"))
        tables.append(table_of(columns, width=width))
    return tables


def measurement_tables(comparison: Comparison, *, width: int = ANY_WIDTH) -> list[Table]:
    """Measured paths beside what was predicted, and how well each prediction did."""
    measured = comparison.measurements
    columns = [
        Column("path", [m.path_id for m in measured], style="cyan", is_text=True),
        Column("measured", [quantity(m.latency_ms, "ms") for m in measured]),
        Column("spread", [quantity(m.spread_ms, "ms") for m in measured], rank=2),
        Column("images/s", [f"{m.images_per_s:.1f}" for m in measured], rank=1),
    ]
    for prediction in comparison.predictions:
        cells = [quantity(value, prediction.unit) for value in prediction.values]
        columns.append(Column(prediction.name, cells))
    paths = table_of(columns, width=width)
    agreement = Table(box=None, header_style="bold", pad_edge=False)
    agreement.add_column("prediction", style="cyan")
    for title in ("rank correlation", "median error", "error after one factor"):
        agreement.add_column(title, justify="right")
    for found in comparison.agreements:
        error = percent(found.median_error)
        agreement.add_row(found.name, f"{found.spearman:.3f}", error, percent(found.scaled_error))
    return [paths, agreement]
