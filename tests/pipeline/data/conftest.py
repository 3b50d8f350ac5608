"""A cache of one's own for each test, and a folder of pictures."""

from pathlib import Path

import datasets
import pytest

from paretopath.data.saying import say
from tests.pipeline.data.pictures import COLOURS, picture


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    say.cache_clear()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An imagefolder: 20 pictures a colour to learn from, 4 to validate with, no test."""
    for split, count in (("train", 20), ("validation", 4)):
        for colour in COLOURS:
            place = tmp_path / "pictures" / split / colour
            place.mkdir(parents=True)
            for index in range(count):
                picture(colour, (10 + index, 12)).save(place / f"{index}.png")
    return tmp_path / "pictures"
