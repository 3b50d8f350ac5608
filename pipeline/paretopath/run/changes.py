"""What a run that goes on may change of its recipe."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from paretopath.errors import RunDirectoryError
from paretopath.recipe import Recipe

# None of it makes a finished trial wrong.
CHANGEABLE = ("name", "retrain", "tracking", "launch")
SEARCH_CHANGEABLE = ("trials", "workers", "storage", "lease_seconds")


MAKE_WEIGHTS = ("task", "space", "weights", "data", "train", "exits", "calibration")


OF_PATHS = ("repair", "batch_norm_images")
"""What of the calibration single paths are fitted by; the weights that they share are not."""


def search_identity(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe a search depends on."""
    values = recipe.dump()
    values["search"] = {k: v for k, v in values["search"].items() if k not in SEARCH_CHANGEABLE}
    return {name: value for name, value in values.items() if name not in CHANGEABLE}


def ingredients(recipe: Recipe) -> dict[str, Any]:
    """What of a recipe the base weights depend on."""
    values = recipe.dump()
    for name in OF_PATHS:
        del values["calibration"][name]
    del values["exits"]["search"]
    return {name: values[name] for name in MAKE_WEIGHTS}


def require_same(
    new: Recipe,
    old: Recipe,
    directory: Path,
    *,
    of: Callable[[Recipe], dict[str, Any]] = search_identity,
) -> None:
    """RunDirectoryError if a recipe asks for another run than the one of a directory.

    Args:
        new: what is asked for.
        old: what the directory holds.
        directory: the run's, for the error.
        of: what of the recipes must be the same.
    """
    differences = _differences(of(old), of(new))
    if differences:
        field, was, wanted = differences[0]
        raise RunDirectoryError(
            f"{directory} holds a run whose {field} is {was!r}, but now it is {wanted!r}; "
            f"name another --run-dir, or start anew with --fresh"
        )


def _differences(old: Any, new: Any, field: str = "") -> list[tuple[str, Any, Any]]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        found = []
        for name in {**old, **new}:
            inner = f"{field}.{name}" if field else str(name)
            found += _differences(old.get(name), new.get(name), inner)
        return found
    return [] if old == new else [(field, old, new)]
