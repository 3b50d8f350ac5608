"""Some images, and what the paths of a front find in them: what a report shows of a task."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from paretopath.data.loading import normalisation
from paretopath.elastic import ElasticModel
from paretopath.evaluation.fitted import FittedEvaluator
from paretopath.files import write_atomically
from paretopath.front import Point
from paretopath.run import Run, Scoring
from paretopath.tasks.task import PicturingTask

IMAGES = 6
"""Of validation, the first ones."""


@torch.inference_mode()
def save_pictures(
    run: Run,
    scoring: Scoring,
    model: ElasticModel,
    points: Sequence[Point],
    by_class: Mapping[str, Mapping[int, float | None]],
) -> None:
    """Writes the pictures of a run; nothing where its task can't draw.

    Args:
        run: gets ``pictures.json``.
        scoring: has the images.
        model: with the weights that were searched.
        points: whose paths look at the images.
        by_class: the accuracy of each class on test, by path id.
    """
    task, data = scoring.task, run.recipe.data
    if not isinstance(task, PicturingTask) or data is None:
        return
    images, targets = next(iter(scoring.data.loader("validation", batch_size=IMAGES)))
    evaluator = scoring.evaluator(model, "validation", kept=run.own())
    paths = [point.path for point in points]
    own = evaluator.own(paths) if isinstance(evaluator, FittedEvaluator) else {}
    found = {}
    for point in points:
        with model.active(point.path, own.get(point.path)):
            found[point.id] = task.marks(model(images.to(scoring.device)))
    pixels: Tensor = getattr(images, "pixels", images)
    shown = normalisation(data, pixels.shape[1]).undone(pixels)
    content = {
        "classes": list(scoring.data.class_names),
        "by_class": {key: list(values.values()) for key, values in by_class.items()},
        "images": [
            {
                "png": _png(shown[number]),
                "size": list(pixels.shape[2:]),
                "truth": truth,
                "found": {key: marks[number] for key, marks in found.items()},
            }
            for number, truth in enumerate(task.truth(targets))
        ],
    }
    write_atomically(run.pictures_file, json.dumps(content, allow_nan=False).encode())


def load_pictures(run: Run) -> dict[str, Any] | None:
    """What :func:`save_pictures` wrote; None where there is nothing."""
    if not run.pictures_file.is_file():
        return None
    content: dict[str, Any] = json.loads(run.pictures_file.read_bytes())
    return content


def _png(image: Tensor) -> str:
    """(C, Y, X) uint8 as a PNG in base 64."""
    array = image.squeeze(0).numpy() if len(image) == 1 else image.permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
