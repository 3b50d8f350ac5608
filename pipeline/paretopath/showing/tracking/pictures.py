"""Images with boxes as W&B draws them: what is there, and what two paths find."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import Any

from paretopath.front import Front, select

THERE = "there"
FOUND = "found"


def pictures_of(pictures: Mapping[str, Any], front: Front) -> list[Any]:
    """Two of W&B's images for each of the run's: of the front's knee, and of the full path.

    Args:
        pictures: as ``pictures.json`` of a run directory has them.
        front: whose paths found something in them.
    """
    import wandb
    from PIL import Image

    points = {"knee": select(front, "knee")[0], "full path": front.full}
    shown = []
    for image in pictures["images"]:
        with Image.open(io.BytesIO(base64.b64decode(image["png"]))) as opened:
            pixels = opened.convert("RGB")
        for title, point in points.items():
            boxes = {
                THERE: _boxes(image["truth"], pictures["classes"]),
                FOUND: _boxes(image["found"].get(point.id, ()), pictures["classes"]),
            }
            shown.append(wandb.Image(pixels, caption=f"{title} {point.id}", boxes=boxes))
    return shown


def _boxes(marks: Sequence[Mapping[str, Any]], classes: Sequence[str]) -> dict[str, Any]:
    """Marks as one of W&B's groups of boxes, in pixels."""
    rows = []
    for mark in marks:
        sides = dict(zip(("minX", "minY", "maxX", "maxY"), mark["box"], strict=True))
        row: dict[str, Any] = {
            "position": sides,
            "domain": "pixel",
            "class_id": mark["label"],
            "box_caption": classes[mark["label"]],
        }
        if mark["score"] is not None:
            row["scores"] = {"score": mark["score"]}
        rows.append(row)
    return {"box_data": rows, "class_labels": dict(enumerate(classes))}
