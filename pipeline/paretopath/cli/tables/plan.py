"""What a search would do, before it does it."""

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

from rich.markup import escape
from rich.table import Table

from paretopath.cli.tables.columns import ANY_WIDTH, Column, table_of
from paretopath.costs import COSTS, cost_named
from paretopath.jobs import SearchPlan, WeightsPlan
from paretopath.paths import Value
from paretopath.quantities import counted, percent
from paretopath.recipe import Recipe
from paretopath.weights.new import plain_name

_NAMED = 3  # decisions of the same values that are named


def plan_tables(plan: SearchPlan, *, width: int = ANY_WIDTH) -> list[Table]:
    """What will be searched and how, and what its paths cost."""
    said = Table.grid(padding=(0, 2))
    said.add_column(style="cyan", no_wrap=True)
    said.add_column(overflow="fold")
    for title, text in _lines(plan):
        said.add_row(title, escape(text))
    costs = [cost for cost in COSTS if cost.name in plan.full]
    columns = [
        Column("cost of an image", [cost.title for cost in costs], style="cyan", is_text=True),
        Column("full path", [cost.text(plan.full[cost.name]) for cost in costs]),
        Column("cheapest", [cost.text(plan.cheapest.get(cost.name)) for cost in costs]),
        Column("of full", [_share(plan, cost.name) for cost in costs]),
    ]
    if plan.budgets:
        bounds = [plan.budgets.get(cost.name) for cost in costs]
        texts = ["" if b is None else cost.text(b) for b, cost in zip(bounds, costs, strict=True)]
        columns.append(Column("budget", texts))
    return [said, table_of(columns, width=width)]


def _lines(plan: SearchPlan) -> list[tuple[str, str]]:
    search = plan.recipe.search
    racing = "none: every path is scored on all images"
    if search.racing is not None:
        shares = ", ".join(f"{100 * share:g}" for share in search.racing.shares)
        racing = f"after {shares} % of the images, {percent(search.racing.confidence)} sure"
    if plan.weights.how == "none":
        racing = "none: accuracies are predicted"
    limits = search.limits.items()
    budgets = ", ".join(f"{cost_named(name).title} {text}" for name, text in limits)
    settled = f" open, {plan.settled} settled" if plan.settled else ""
    return [
        ("run", f"{plan.run} ({_found(plan)})"),
        ("space", f"{plan.space}: {size_line(plan)}"),
        ("decisions", f"{len(plan.decisions)}{settled}"),
        *(("", line) for line in _decisions(plan.decisions)),
        *(("left as it is" if not i else "", line) for i, line in enumerate(_left(plan.left))),
        ("images", images_line(plan)),
        ("accuracy", f"{plan.metric}, {plan.accuracy}"),
        ("weights", weights_line(plan)),
        ("hardware", plan.hardware),
        ("budgets", budgets or "none"),
        ("trials", f"{counted(min(search.trials, plan.size), 'path')} by {search.sampler}"),
        ("racing", racing),
        *([("storage", search.storage)] if search.storage else []),
        ("launch", f"{_launch(plan.recipe)}; models run on {plan.device}"),
    ]


def _found(plan: SearchPlan) -> str:
    known = f", {counted(plan.trials_known, 'trial')} done" if plan.trials_known else ""
    return {
        "nothing": "new",
        "a run": f"goes on{known}",
        "a run to move": "new; the older run is moved aside",
    }[plan.found]


def _decisions(decisions: Mapping[str, tuple[Value, ...]]) -> list[str]:
    """A line for all decisions of the same values."""
    alike: dict[tuple[Value, ...], list[str]] = {}
    for name, values in decisions.items():
        alike.setdefault(tuple(map(str, values)), []).append(name)
    return [f"{_listed(names)}: {', '.join(map(str, values))}" for values, names in alike.items()]


def _left(left: Mapping[str, str]) -> list[str]:
    """A line for all that is left for reasons that differ in numbers alone."""
    alike: dict[str, list[str]] = {}
    for name, why in left.items():
        alike.setdefault(re.sub(r"\d+", "", why), []).append(name)
    return [f"{_listed(names)}: {left[names[0]]}" for names in alike.values()]


def _listed(names: Sequence[str]) -> str:
    if len(names) <= _NAMED + 1:
        return ", ".join(names)
    return f"{', '.join(names[:_NAMED])} … {names[-1]} ({len(names)})"


def size_line(plan: SearchPlan) -> str:
    """How many paths the space has."""
    size = f"{plan.size:,}"
    if plan.size >= 10**9:
        size = f"{Decimal(plan.size):.1e}".replace("e+", "·10^")
    return f"{size} path{'' if plan.size == 1 else 's'}"


def images_line(plan: SearchPlan) -> str:
    """How many images each part has."""
    if plan.source is None:
        return "none"
    parts = ", ".join(f"{number:,} {name}" for name, number in plan.images.items())
    return f"{plan.source}: {parts}; {plan.classes} classes"


def weights_line(plan: SearchPlan) -> str:
    """How base weights will come."""
    weights, images = plan.weights, plan.images.get("train", 0)
    looked_at = min(weights.calibration_images or 0, images)
    calibrated = f", calibrated on {looked_at:,} of them" if looked_at else ""
    trained = f"trained {counted(weights.epochs or 0, 'epoch')} on {images:,} images"
    origin = weights.origin
    if isinstance(origin, Mapping):
        origin = ", ".join(f"{name}: {file}" for name, file in origin.items())
    return {
        "none": "none: accuracies are predicted",
        "kept": f"there: {origin}",
        "taken": f"made from the same: {origin}",
        "loaded": f"loaded from {origin}{_learned(weights, trained)}"
        + (calibrated if weights.epochs else calibrated.replace("of them", "images")),
        "trained": trained + calibrated,
    }[weights.how]


def _learned(weights: WeightsPlan, trained: str) -> str:
    if weights.trains == "none":
        return ""
    new = [plain_name(name) for name in weights.new]
    lacking = f"; they lack {_listed(new)}" if new else ""
    which = "all" if weights.trains == "all" else "these alone" if weights.new else ""
    return f"{lacking}; {which} {trained}"


def _launch(recipe: Recipe) -> str:
    launch, workers = recipe.launch, counted(recipe.search.workers, "worker")
    if launch.where == "local":
        return "in this process" if recipe.search.workers == 1 else f"{workers} on this machine"
    per_job = f"{counted(launch.nodes, 'node')}, {counted(launch.gpus_per_node, 'GPU')} a node"
    return f"{workers} as jobs of SLURM: {per_job}, at most {launch.time_minutes} minutes"


def _share(plan: SearchPlan, name: str) -> str:
    full = plan.full[name]
    return percent(plan.cheapest[name] / full) if full and name in plan.cheapest else ""
