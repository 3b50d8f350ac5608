"""What was found in a model and its images, for which a recipe was written."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape
from rich.table import Table

from paretopath.cli.tables.plan import images_line, size_line, weights_line
from paretopath.jobs import Draft, SearchPlan

_NAMED = 6


def found_table(drafted: Draft, plan: SearchPlan) -> Table:
    """What was found in the folder, the model and its weights."""
    table = Table.grid(padding=(0, 2))
    table.add_column(style="cyan", no_wrap=True)
    table.add_column(overflow="fold")
    for title, text in _lines(drafted, plan):
        table.add_row(title, escape(text))
    return table


def found_json(drafted: Draft, plan: SearchPlan) -> dict[str, Any]:
    """The same as plain values."""
    pictures, proposal = drafted.pictures, drafted.proposal
    return {
        "name": drafted.name,
        "model": drafted.model,
        "space": drafted.space,
        "input_shape": list(proposal.input_shape),
        "published": proposal.published,
        "classes": list(pictures.classes),
        "images": dict(plan.images),
        "shorter_side": pictures.shorter_side,
        "grey": pictures.grey,
        "decisions": len(plan.decisions),
        "paths": plan.size,
        "left": dict(plan.left),
        "new": list(plan.weights.new),
        "hardware": plan.hardware,
        "run": plan.run,
    }


def _lines(drafted: Draft, plan: SearchPlan) -> list[tuple[str, str]]:
    pictures, proposal = drafted.pictures, drafted.proposal
    names = ", ".join(pictures.classes[:_NAMED])
    more = len(pictures.classes) - _NAMED
    sides = [side for size in pictures.sizes for side in size]
    span = f"{min(sides)}" if min(sides) == max(sides) else f"{min(sides)} to {max(sides)}"
    colours = "grey" if pictures.grey == len(pictures.sizes) else "coloured"
    published = proposal.published if drafted.weights is None else None
    shape = " x ".join(map(str, proposal.input_shape))
    return [
        ("classes", f"{len(pictures.classes)}: {names}" + (f" and {more} more" * (more > 0))),
        ("pictures", f"{colours}, sides of {span} pixels (of {len(pictures.sizes)} looked at)"),
        ("images", images_line(plan)),
        ("model", f"{drafted.model}: images of {shape}"),
        ("space", f"{drafted.space}: {len(plan.decisions)} decisions, {size_line(plan)}"),
        *([("left", f"{_some(plan.left)}; search --dry-run names all")] if plan.left else []),
        ("weights", weights_line(plan)),
        *([("published", published)] if published else []),
        ("hardware", plan.hardware),
        ("trials", f"{plan.recipe.search.trials} paths, by {drafted.cost}"),
    ]


def _some(left: Mapping[str, str]) -> str:
    """How many modules keep their form, and why the first one does."""
    name, why = next(iter(left.items()))
    if len(left) == 1:
        return f"{name} keeps its form: {why}"
    return f"{len(left)} modules keep their form; {name}: {why}"
