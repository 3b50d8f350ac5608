"""Texts that are parsed later are parsed where they are read, with the same sentence."""

from pathlib import Path

import pytest

from paretopath.cli.arguments import one_of
from paretopath.errors import InvalidValueError, RecipeError
from paretopath.recipe import load_recipe
from paretopath.recipe.selection import Selection, parse_selection
from paretopath.recipe.storage_url import check_url


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("knee", Selection("knee")),
        (" all ", Selection("all")),
        ("count= 4", Selection("count", count=4)),
        ("budget=12.5mJ", Selection("budget", budget="12.5mJ")),
        ("budget=256kB", Selection("budget", budget="256kB")),
        ("macs= 60%", Selection("budget", budget="60%", cost="macs")),
        ("id=3f, 9c", Selection("id", ids=("3f", "9c"))),
    ],
)
def test_a_selection_is_read(text: str, found: Selection) -> None:
    assert parse_selection(text) == found


@pytest.mark.parametrize(
    ("section", "text", "words"),
    [
        ("retrain.select", "count", "retrain.select: count=N needs a whole number"),
        ("retrain.select", "count=0", "from 1 up"),
        ("retrain.select", "budget=0%", "percentage must be over 0"),
        ("retrain.select", "budget=5V", "a budget's unit must be"),
        ("retrain.select", "kne", "a selection can't be 'kne'.*'knee'"),
        ("retrain.select", "id=", "a selection can't be 'id='"),
        ("search.storage", "postgres://db/x", "URL of a database.*did you mean 'postgresql'"),
        ("search.storage", "study.db", "URL of a database, but got 'study.db'"),
        ("search.storage", "grpc://host:port", "must be grpc://HOST:PORT"),
        ("search.storage", "sqlite:///", "must name a place"),
        ("hardware.device", "gpu", "there is no device 'gpu'.*'cuda'"),
    ],
)
def test_what_is_parsed_later_is_refused_in_a_recipe_and_as_an_option(
    section: str, text: str, words: str, tmp_path: Path
) -> None:
    recipe = tmp_path / "tiny.yaml"
    name, field = section.split(".")
    more = "model: device, " if name == "hardware" else ""
    recipe.write_text(
        f"name: tiny\nspace: {{name: vit}}\ndata: {{source: digits}}\n"
        f"{name}: {{{more}{field}: '{text}'}}\n"
    )
    with pytest.raises(RecipeError, match=f"tiny.yaml:4: .*{words}"):
        load_recipe(recipe)
    recipe.write_text("name: tiny\nspace: {name: vit}\ndata: {source: digits}\n")
    good = load_recipe(recipe)
    with pytest.raises(RecipeError, match=words):
        good.with_overrides({section: text} | ({"hardware.model": "device"} if more else {}))


def test_urls_of_each_kind_are_taken() -> None:
    urls = ("postgresql://me@db/x", "sqlite:///x.db", "mysql+pymysql://db/x", "grpc://host:13000")
    assert [check_url(url) for url in urls] == ["postgresql", "sqlite", "mysql", "grpc"]


def test_a_word_that_is_not_among_an_options_names_the_nearest() -> None:
    check = one_of("--mode", "shared", "separate")
    assert check(None) is None and check("shared") == "shared"
    with pytest.raises(InvalidValueError, match=r"--mode must be .*did you mean 'separate'"):
        check("seperate")
