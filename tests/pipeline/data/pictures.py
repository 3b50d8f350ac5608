"""Pictures and sections of recipes that the tests of data share."""

import io
from collections import Counter
from typing import Any

from PIL import Image

from paretopath.data import DataSplits
from paretopath.recipe import Data

COLOURS = {"blue": (0, 0, 255), "green": (0, 255, 0), "red": (255, 0, 0)}


def data(**fields: Any) -> Data:
    return Data.model_validate(fields)


def picture(colour: str, size: tuple[int, int] = (12, 10)) -> Image.Image:
    return Image.new("RGB", size, COLOURS[colour])


def png(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def labels_of(splits: DataSplits) -> dict[str, Counter[int]]:
    names = ("train", "validation", "test")
    return {name: Counter(getattr(splits, name).targets.tolist()) for name in names}
