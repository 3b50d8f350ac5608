"""When images leave early, and what that comes to."""

from collections.abc import Sequence

from rich.table import Table

from paretopath.cli.tables.columns import ANY_WIDTH, Column, table_of
from paretopath.costs import cost_named
from paretopath.front import DynamicPoint, Front
from paretopath.quantities import UNKNOWN, percent


def policies_table(
    front: Front, points: Sequence[DynamicPoint], *, width: int = ANY_WIDTH
) -> Table:
    """Dynamic points, cheapest first.

    Args:
        front: that has them.
        points: those to show.
        width: of the screen.
    """
    cost = cost_named(front.cost)
    full = front.cost_of(front.full)
    amounts = [point.cost(front.cost) for point in points]
    return table_of(
        [
            Column("path", [point.path.id for point in points], style="cyan", is_text=True),
            Column("exits", [_exits(point) for point in points], is_text=True),
            Column(
                "confidence", [point.policy.confidence for point in points], rank=3, is_text=True
            ),
            Column(f"{front.metric}\n(val.)", [percent(p.validation.accuracy) for p in points]),
            Column(
                f"{front.metric}\n(test)",
                [percent(p.test.accuracy, p.test.error) if p.test else UNKNOWN for p in points],
            ),
            Column("loses\n(val.)", [f"{100 * p.validation.loss:.1f}" for p in points], rank=2),
            Column("at most", [f"{100 * p.promised_loss:.1f}" for p in points], rank=1),
            Column(
                "loses\n(test)",
                [f"{100 * p.test.loss:.1f}" if p.test else UNKNOWN for p in points],
                rank=1,
            ),
            Column(cost.title, [cost.text(amount) for amount in amounts]),
            Column("saved", [percent(1 - a / full) if a is not None else UNKNOWN for a in amounts]),
        ],
        width=width,
    )


def exits_table(point: DynamicPoint, *, width: int = ANY_WIDTH) -> Table:
    """Where images leave by one policy, from how sure, and how often they are right there."""
    policy, on_validation, on_test = point.policy, point.validation, point.test
    confidence = [f"{threshold:.4g}" for threshold in policy.thresholds]
    columns = [
        Column("exit", policy.exits, style="cyan", is_text=True),
        Column(f"{policy.confidence}\nfrom", [*confidence, "all"]),
        Column("temperature", [*(f"{t:.3g}" for t in policy.temperatures), UNKNOWN], rank=1),
        Column("leave\n(val.)", [percent(share) for share in on_validation.shares]),
        Column("right\n(val.)", [percent(share) for share in on_validation.right]),
    ]
    if on_test:
        columns += [
            Column("leave\n(test)", [percent(share) for share in on_test.shares]),
            Column("right\n(test)", [percent(share) for share in on_test.right]),
        ]
    bars = ["█" * round(24 * share) for share in on_validation.shares]
    columns.append(Column("", bars, style="cyan", rank=2, is_text=True))
    return table_of(columns, width=width)


def _exits(point: DynamicPoint) -> str:
    """Which exits are asked, without what their names share: ``3 6 12``."""
    return " ".join(name.rsplit(".", 1)[-1] for name in point.policy.exits)
