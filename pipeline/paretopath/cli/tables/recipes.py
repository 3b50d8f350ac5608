"""The recipes that come with paretopath."""

from collections.abc import Sequence

from rich.markup import escape
from rich.table import Table

from paretopath.recipe.shipped import ShippedRecipe


def recipes_table(recipes: Sequence[ShippedRecipe]) -> Table:
    """A recipe a row: its name, what it searches, and what must be had for it."""
    table = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    table.add_column("recipe", style="cyan", no_wrap=True)
    table.add_column("what it searches")
    table.add_column("needs", max_width=18)
    for recipe in recipes:
        table.add_row(recipe.name, escape(recipe.about), ", ".join(recipe.needs) or "nothing")
    return table
