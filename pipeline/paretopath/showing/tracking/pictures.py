"""Images as W&B draws them: with boxes of two paths, and as they leave a path early."""

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paretopath.front import Front, select

if TYPE_CHECKING:
    from PIL.Image import Image

THERE = "there"
FOUND = "found"


def pictures_of(pictures: Mapping[str, Any], front: Front) -> dict[str, list[Any]]:
    """What ``pictures.json`` has of a front, as W&B's images by the name of their panel.

    ``pictures``: two for each of the run's, of the front's knee and of the full path. ``leaving``:
    see :func:`leaving_of`.

    Args:
        pictures: as the file in a run directory has them.
        front: whose paths found something in them.
    """
    import wandb

    points = {"knee": select(front, "knee")[0], "full path": front.full}
    shown = []
    for image in pictures["images"]:
        for title, point in points.items():
            boxes = {
                THERE: _boxes(image["truth"], pictures["classes"]),
                FOUND: _boxes(image["found"].get(point.id, ()), pictures["classes"]),
            }
            caption = f"{title} {point.id}"
            shown.append(wandb.Image(_opened(image), caption=caption, boxes=boxes))
    return ({"pictures": shown} if shown else {}) | leaving_of(pictures, front)


def leaving_of(pictures: Mapping[str, Any], front: Front) -> dict[str, list[Any]]:
    """The images that leave a path first and last by a policy of the front, under ``leaving``;
    nothing where there are none.
    """
    import wandb

    leaving = pictures.get("leaving")
    if leaving is None or leaving["policy"] not in {point.id for point in front.policies}:
        return {}
    shown = [
        wandb.Image(_opened(image), caption=f"{when}: {_said(image, pictures['classes'])}")
        for when in ("first", "last")
        for image in leaving[when]
    ]
    return {"leaving": shown}


def _said(image: Mapping[str, Any], classes: Sequence[str]) -> str:
    """What is there, and what each exit said: ``7; exits.1: 1 (41 %), exits.8: 7 (99 %)``."""
    there = classes[image["truth"][0]["label"]]
    said = (
        f"{name}: {classes[mark['label']]} ({mark['score']:.0%})"
        for name, (mark,) in image["found"].items()
    )
    return f"{there}; {', '.join(said)}"


def _opened(image: Mapping[str, Any]) -> "Image":
    from PIL import Image

    with Image.open(io.BytesIO(base64.b64decode(image["png"]))) as opened:
        return opened.convert("RGB")


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
