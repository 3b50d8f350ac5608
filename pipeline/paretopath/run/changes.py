"""What a run that goes on may change of its recipe."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paretopath.errors import RunDirectoryError
from paretopath.recipe import Recipe

# None of it makes a finished trial wrong.
CHANGEABLE = ("name", "retrain", "tracking", "launch")
SEARCH_CHANGEABLE = ("trials", "workers", "storage", "lease_seconds")


def require_same(new: Recipe, old: Recipe, directory: Path, *, trained: bool = True) -> None:
    """RunDirectoryError if a recipe asks for another run than the one of a directory.

    ``trained``: whether it has its weights; until then ``train`` may change.
    """
    before, now = _identity(old), _identity(new)
    if not trained:
        before["train"] = now["train"]
    differences = _differences(before, now)
    if differences:
        field, was, wanted = differences[0]
        raise RunDirectoryError(
            f"{directory} holds a run whose {field} is {was!r}, but now it is {wanted!r}; "
            f"name another --run-dir, or start anew with --fresh"
        )


def _identity(recipe: Recipe) -> dict[str, Any]:
    values = recipe.dump()
    values["search"] = {k: v for k, v in values["search"].items() if k not in SEARCH_CHANGEABLE}
    return {name: value for name, value in values.items() if name not in CHANGEABLE}


def _differences(old: Any, new: Any, field: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for name in {**old, **new}:
            inner = f"{field}.{name}" if field else str(name)
            found += _differences(old.get(name), new.get(name), inner)
        return found
    return [] if old == new else [(field, old, new)]
