"""Small fronts whose figures can be worked out by hand."""

from dataclasses import replace
from typing import Any

from paretopath.costs import COST_NAMES
from paretopath.front import Front, Point
from paretopath.paths import ExecutionPath


def point(cost: float, accuracy: float, number: int = 0, **changes: Any) -> Point:
    """A point of that many millijoules, whose path (so its id) follows from its number."""
    costs = {"macs": int(cost * 1e6), "params": 1000 + number}
    costs |= {"energy_mj": cost, "latency_ms": cost / 2}
    costs |= {name: changes.pop(name) for name in COST_NAMES if name in changes}
    made = Point(
        path=ExecutionPath({"exit": number, "blocks.0.mlp_ratio": 0.5, "merged": True}),
        number=number,
        accuracy=accuracy,
        accuracy_error=0.01,
        samples=360,
        costs={name: value for name, value in costs.items() if value is not None},
    )
    return replace(made, **changes)


def front_of(*points: Point, **changes: Any) -> Front:
    options: dict[str, Any] = {
        "full": point(10.0, 0.97, 99),
        "recipe": {"space": {"name": "vit"}, "seed": 0},
        "hardware": "magnet-16nm",
        "metric": "top-1",
    }
    return Front.of(points, **(options | changes))


# accuracy rises fast up to 4 mJ and slowly after: the bend is there
BENT = [(1, 0.50), (2, 0.70), (3, 0.85), (4, 0.93), (6, 0.94), (8, 0.95), (9, 0.96)]
