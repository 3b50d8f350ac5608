"""Recipes as short as they can be, and what a mistake in one says."""

from pathlib import Path

import pytest

from paretopath.errors import RecipeError
from paretopath.recipe import load_recipe

HEAD = "name: toy\nspace: {name: vit}\n"
MINIMAL = HEAD + "data: {source: digits}\n"


def mistake(file: Path) -> str:
    """The whole message of a recipe's error, after the file's name."""
    with pytest.raises(RecipeError) as caught:
        load_recipe(file)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(f"{file}:")
    return message.removeprefix(f"{file}:")
