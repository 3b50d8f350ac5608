"""The page of documentation that is made from the schema of recipes."""

import importlib.util
import re
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel

from paretopath import plugins
from paretopath.elastic.options import options_of
from paretopath.elastic.registry import space_names
from paretopath.recipe import Recipe

SCRIPT = Path(__file__).parents[3] / "docs" / "api" / "recipe_reference.py"


@pytest.fixture(scope="module")
def sections() -> dict[str, dict[str, list[str]]]:
    """By heading: the cells of each field's row, without its name, by name."""
    spec = importlib.util.spec_from_file_location("recipe_reference", SCRIPT)
    assert spec is not None and spec.loader is not None
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    found: dict[str, dict[str, list[str]]] = {}
    for part in re.split(r"^#+ ", script.page(), flags=re.MULTILINE)[1:]:
        title, _, body = part.partition("\n")
        rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in body.splitlines()]
        cells = [[cell.strip() for cell in row] for row in rows if len(row) == 4]
        found[title] = {row[0].strip("`"): row[1:] for row in cells if row[0].startswith("`")}
    return found


def fields(model: type[BaseModel], path: str) -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        yield path or "Recipes", name
        for kind in (field.annotation, *get_args(field.annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel) and name != "task":
                yield from fields(kind, f"{path}.{name}".strip("."))


def test_it_has_every_field_and_says_what_each_is(
    sections: dict[str, dict[str, list[str]]],
) -> None:
    missing = [(title, name) for title, name in fields(Recipe, "") if name not in sections[title]]
    assert not missing
    for title, rows in sections.items():
        for name, (values, _, description) in rows.items():
            assert values and description, f"{name} of {title} needs a description"


def test_it_has_every_option_of_every_family(sections: dict[str, dict[str, list[str]]]) -> None:
    assert {"vit", "ofa_resnet50", "segformer", "upernet_swin", "family"} <= set(space_names())
    for name in space_names():
        assert list(sections[name]) == options_of(
            plugins.find(plugins.FAMILIES, name, kind="search space")
        )


def test_it_shows_ranges_choices_and_defaults(sections: dict[str, dict[str, list[str]]]) -> None:
    assert sections["search"]["trials"][:2] == ["whole number from 1 up to 100000", "`200`"]
    assert sections["train"]["lr"][:2] == ["number over 0", "`0.001`"]
    assert sections["calibration"]["order"][0] == "`least_squares`, `magnitude`, `taylor`"
    assert sections["vit"]["mlp_ratios"][0] == "list of number over 0 up to 1"
    assert sections["random_crop"]["padding"][:2] == ["whole number from 0", "`0`"]
    assert "activation_bytes" in sections["search"]["cost"][2]
