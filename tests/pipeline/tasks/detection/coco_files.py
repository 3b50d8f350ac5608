"""Small data sets in COCO's format, written by tests."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from paretopath.data.scenes import SCENES_WITH_BOXES, scenes
from paretopath.recipe import Data

Content = dict[str, Any]

CATEGORIES = [{"id": 3, "name": "cat"}, {"id": 7, "name": "dog"}, {"id": 12, "name": "cow"}]


def content(images: int = 6) -> Content:
    """Grey images of 40 x 30 pixels, two objects each; categories' ids have gaps."""
    found: Content = {
        "images": [
            {"id": 10 + number, "file_name": f"{number}.png", "width": 40, "height": 30}
            for number in range(images)
        ],
        "annotations": [],
        "categories": [dict(category) for category in CATEGORIES],
    }
    for number in range(images):
        for place, category in enumerate((3, 7 if number % 2 else 12)):
            found["annotations"].append(
                {
                    "id": len(found["annotations"]) + 1,
                    "image_id": 10 + number,
                    "category_id": category,
                    "bbox": [4 + 16 * place, 5 + number, 10, 12],
                    "area": 110,
                    "iscrowd": 0,
                }
            )
    return found


def write(folder: Path, change: Callable[[Content], Any] = lambda found: None) -> Data:
    """Writes a data set, changed as is asked, and says what a recipe would say of it."""
    found = content()
    for image in found["images"]:
        pixels = np.full((image["height"], image["width"], 3), 90, dtype=np.uint8)
        Image.fromarray(pixels).save(folder / image["file_name"])
    changed = change(found)
    file = folder / "instances.json"
    file.write_text(json.dumps(found if changed is None else changed))
    return config(folder, {"train": str(file)})


def config(folder: Path, files: dict[str, str], **more: Any) -> Data:
    return Data.model_validate(
        {
            "source": "coco",
            "data_dir": str(folder),
            "data_files": files,
            "splits": {"validation": 0.34, "test": 0.17},
            "workers": 0,
            **more,
        }
    )


def write_scenes(folder: Path, numbers: dict[str, int]) -> dict[str, str]:
    """Scenes of digits as files; the JSON file of each split."""
    files = {}
    for split, number in numbers.items():
        examples = scenes(3, SCENES_WITH_BOXES)[split]
        (folder / split).mkdir()
        found: Content = {
            "images": [],
            "annotations": [],
            "categories": [{"id": digit + 1, "name": str(digit)} for digit in range(10)],
        }
        for index in range(number):
            scene = examples.scene(index)
            name = f"{index}.png"
            Image.fromarray(scene.image.permute(1, 2, 0).numpy()).save(folder / split / name)
            found["images"].append({"id": index, "file_name": name, "width": 64, "height": 64})
            for (x0, y0, x1, y1), digit in zip(
                scene.boxes.tolist(), scene.digits.tolist(), strict=True
            ):
                found["annotations"].append(
                    {
                        "id": len(found["annotations"]),
                        "image_id": index,
                        "category_id": digit + 1,
                        "bbox": [x0, y0, x1 - x0, y1 - y0],
                        "area": (x1 - x0) * (y1 - y0),
                        "iscrowd": 0,
                    }
                )
        file = folder / f"{split}.json"
        file.write_text(json.dumps(found))
        files[split] = str(file)
    return files


def change_annotation(key: str, value: Any) -> Callable[[Content], None]:
    """Gives the third annotation another value."""

    def change(found: Content) -> None:
        found["annotations"][2][key] = value

    return change
