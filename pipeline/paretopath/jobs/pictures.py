"""Some images, and what paths find in them: what a report shows of a task, and of leaving early."""

import base64
import io
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from paretopath.data.loading import normalisation
from paretopath.elastic import ElasticModel
from paretopath.evaluation.fitted import FittedEvaluator
from paretopath.files import write_atomically
from paretopath.front import DynamicPoint, Point
from paretopath.policies.outputs import ExitOutputs
from paretopath.policies.points import exits_taken
from paretopath.run import Run, Scoring
from paretopath.tasks.task import Mark, PicturingTask

IMAGES = 6
"""Of validation: the first ones; those that leave first, and those that leave last."""

_SMALL = 128  # pixels of the longer side of images that leave


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
    task = scoring.task
    if not isinstance(task, PicturingTask):
        return
    images, targets = next(iter(scoring.data.loader("validation", batch_size=IMAGES)))
    evaluator = scoring.evaluator(model, "validation", kept=run.own())
    paths = [point.path for point in points]
    own = evaluator.own(paths) if isinstance(evaluator, FittedEvaluator) else {}
    found = {}
    for point in points:
        with model.active(point.path, own.get(point.path)):
            found[point.id] = task.marks(model(images.to(scoring.device)))
    drawn = _drawn(run, images)
    shown = [
        _picture(drawn[number], truth, {key: marks[number] for key, marks in found.items()})
        for number, truth in enumerate(task.truth(targets))
    ]
    by_path = {key: list(values.values()) for key, values in by_class.items()}
    _update(run, scoring, images=shown, by_class=by_path)


def save_leaving(
    run: Run, scoring: Scoring, points: Sequence[DynamicPoint], outputs: Sequence[ExitOutputs]
) -> None:
    """Writes pictures of the images of validation that leave a path first and last: the surest at
    its first exit, the least sure at its last, with what each exit says that they were asked at.

    Args:
        run: its ``pictures.json`` gets them beside what it holds.
        scoring: has the images.
        points: by one of which images leave, see :func:`shown_of`.
        outputs: of the exits of each point's path on validation.
    """
    point = shown_of(points)
    if point is None:
        return
    of_path = outputs[points.index(point)]
    asked = [of_path.exits.index(name) for name in point.policy.exits]
    taken = exits_taken(point.policy, of_path)
    scores, answers = of_path.logits.softmax(2).max(2)  # (exits, images)
    order = np.lexsort((-scores.numpy()[taken, np.arange(len(taken))], taken))

    def picture(image: int) -> dict[str, Any]:
        pixels, target = scoring.data.validation.__getitems__([image])
        found = {
            of_path.exits[number]: [_answer(int(answers[number, image]), scores[number, image])]
            for number in asked
            if number <= taken[image]
        }
        (drawn,) = _drawn(run, pixels)
        drawn.thumbnail((_SMALL, _SMALL))
        return _picture(drawn, [_answer(int(target[0]))], found)

    leaving = {
        "policy": point.id,
        "first": [picture(image) for image in order[:IMAGES].tolist()],
        "last": [picture(image) for image in order[: -IMAGES - 1 : -1].tolist()],
    }
    _update(run, scoring, leaving=leaving)


def shown_of(points: Sequence[DynamicPoint]) -> DynamicPoint | None:
    """The cheapest of the policies that lose least, of those that ask several exits; None without
    any.
    """
    several = [point for point in points if len(point.policy.exits) > 1]
    return min(several, key=lambda point: point.promised_loss, default=None)


def load_pictures(run: Run) -> dict[str, Any] | None:
    """What :func:`save_pictures` wrote; None where there is nothing."""
    if not run.pictures_file.is_file():
        return None
    content: dict[str, Any] = json.loads(run.pictures_file.read_bytes())
    return content


def _update(run: Run, scoring: Scoring, **fields: Any) -> None:
    """Writes some fields of a run's pictures; the others stay."""
    content = {"by_class": {}, "images": [], **(load_pictures(run) or {}), **fields}
    content["classes"] = list(scoring.data.class_names)
    write_atomically(run.pictures_file, json.dumps(content, allow_nan=False).encode())


def _drawn(run: Run, images: Any) -> list[Image.Image]:
    """A batch as it was before it was normalised."""
    pixels: Tensor = getattr(images, "pixels", images)
    assert run.recipe.data is not None
    undone = normalisation(run.recipe.data, pixels.shape[1]).undone(pixels)  # (B, C, Y, X) uint8
    arrays = undone.permute(0, 2, 3, 1).numpy()
    return [Image.fromarray(a[:, :, 0] if a.shape[2] == 1 else a) for a in arrays]


def _answer(label: int, score: Tensor | None = None) -> Mark:
    """What a whole image is."""
    return {"box": None, "label": label, "score": None if score is None else float(score)}


def _picture(
    image: Image.Image, truth: Sequence[Mark], found: Mapping[str, Sequence[Mark]]
) -> dict[str, Any]:
    """An image, what is there, and what is found by whom."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return {
        "png": base64.b64encode(file.getvalue()).decode(),
        "size": [image.height, image.width],
        "truth": truth,
        "found": found,
    }
