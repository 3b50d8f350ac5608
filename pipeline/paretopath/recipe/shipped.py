"""The recipes that come with paretopath: those of a checkout's `recipes/`, or of the wheel."""

import re
from dataclasses import dataclass
from pathlib import Path

from paretopath.errors import RecipeError, nearest
from paretopath.plugins import FAMILIES, extras
from paretopath.recipe.data import BUILT_IN, LOCAL_SOURCES
from paretopath.recipe.recipe import Recipe, load_recipe
from paretopath.recipe.section import is_url


@dataclass(frozen=True)
class ShippedRecipe:
    """One recipe to copy.

    Attributes:
        name: by which it is asked for.
        file: where it is.
        about: what it searches, in a sentence without what stands in parentheses.
        needs: what must be had for it: ``images from the hub``, ``the extra detection``; nothing
            if it runs as it stands.
    """

    name: str
    file: Path
    about: str
    needs: tuple[str, ...]


def shipped_recipes() -> dict[str, ShippedRecipe]:
    """All of them by name."""
    return {file.stem: _described(file) for file in sorted(_folder().glob("*.yaml"))}


def shipped_recipe(name: str) -> ShippedRecipe:
    """One of them.

    Args:
        name: with or without ``.yaml``.

    Raises:
        RecipeError: there is no such recipe.
    """
    known = shipped_recipes()
    wanted = name.removesuffix(".yaml")
    if wanted not in known:
        raise RecipeError(f"there is no shipped recipe {name!r}; {nearest(wanted, known)}")
    return known[wanted]


def _folder() -> Path:
    package = Path(__file__).resolve().parents[1]
    installed = package / "recipes"
    return installed if installed.is_dir() else package.parents[1] / "recipes"


def _described(file: Path) -> ShippedRecipe:
    text = file.read_text(encoding="utf-8")
    comment = re.match(r"(?:#.*\n)+", text)
    words = " ".join(re.sub(r"^# ?", "", comment[0], flags=re.MULTILINE).split()) if comment else ""
    about = re.sub(r" \([^)]*\)", "", re.split(r"(?<=\.)\s", words, maxsplit=1)[0])
    return ShippedRecipe(file.stem, file, about, _needs(load_recipe(file)))


def _needs(recipe: Recipe) -> tuple[str, ...]:
    """What of a recipe does not come with paretopath."""
    installed = [f"the extra {extra}" for extra in extras(FAMILIES, recipe.space.name)]
    images = weights = predictor = None
    if recipe.data is not None and recipe.data.source not in BUILT_IN:
        images = "of your own" if recipe.data.source in LOCAL_SOURCES else "from the hub"
    if recipe.accuracy.predictor is not None:
        predictor = "from the network" if is_url(recipe.accuracy.predictor) else "of your own"
    elif isinstance(recipe.weights, str):
        weights = "of your own" if Path(recipe.weights).is_absolute() else "from the hub"
    if images is not None and images == weights:
        return (*installed, f"images and weights {images}")
    places = {"images": images, "weights": weights, "a predictor": predictor}
    had = (f"{what} {where}" for what, where in places.items() if where is not None)
    return (*installed, *had)
