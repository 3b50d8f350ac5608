"""What the annotations of a data set hold, looked at before anything is trained on them."""

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from paretopath.data.saying import listed, say
from paretopath.data.splits import Indices
from paretopath.errors import DataError
from paretopath.tasks.detection.annotations import Annotation
from paretopath.tasks.detection.examples import ObjectExamples

LOOKED_AT = 128
"""Images of a part that are decoded to be looked at, spread evenly."""

OVER_THE_RIM = 0.4
"""Share of boxes that reach out of their images by more than a tenth, from which they are refused:
then they are stored in another form."""


def check_objects(
    parts: Mapping[str, tuple[ObjectExamples, Indices]], names: tuple[str, ...], *, threads: int
) -> None:
    """Says which classes train and validation lack, and what of objects can't be used.

    Args:
        parts: the examples of each part, and which of them belong to it.
        names: of the classes.
        threads: that decode images.

    Raises:
        DataError: there is nothing to be found, boxes are in another form, or an image can't be
            read or has another size than its annotations say.
    """
    for name in ("train", "validation", "test"):
        examples, indices = parts[name]
        everything = [examples.annotation(int(index)) for index in indices]
        _check_form(name, everything, names)
        number = min(LOOKED_AT, len(indices))
        chosen = indices[(np.arange(number) * len(indices)) // number].tolist()
        with ThreadPoolExecutor(threads) as pool:
            images = pool.map(examples.example, chosen)
            sizes = [(image.shape[1], image.shape[2]) for image, _ in images]
        _check_places(name, [examples.annotation(index) for index in chosen], sizes)


def _check_form(name: str, found: list[Annotation], names: tuple[str, ...]) -> None:
    """Refuses a part without objects and boxes as shares of the image; says what is absent."""
    objects = sum(map(len, found))
    if objects == 0:
        raise DataError(
            f"images must have objects in them, but none of the {len(found)} of {name} has any"
        )
    if max(float(one.boxes.max(initial=0)) for one in found) <= 1:
        raise DataError(
            f"boxes must be in pixels, but all {objects} of {name} lie between 0 and 1: "
            f"multiply them by the images' width and height"
        )
    present = {int(label) for one in found for label in one.labels[~one.crowd]}
    absent = [text for number, text in enumerate(names) if number not in present]
    if absent and name != "test":
        so = "nothing can be learned of it" if name == "train" else "mAP leaves it out"
        say(f"no object of class {listed(absent)} in {name}: {so}")


def _check_places(name: str, stored: list[Annotation], sizes: list[tuple[int, int]]) -> None:
    """Refuses boxes that mostly reach out of their images; says how many have nothing inside."""
    total = out = lost = 0
    for one, (height, width) in zip(stored, sizes, strict=True):
        total += len(one)
        lost += len(one) - len(one.inside(height, width))
        limit = np.array([width, height], dtype=np.float32)
        margin = 0.1 * limit
        beyond = (one.boxes[:, 2:] > limit + margin) | (one.boxes[:, :2] < -margin)
        out += int(beyond.any(1).sum())
    if total and out / total > OVER_THE_RIM:
        raise DataError(
            f"boxes must lie in their images, but {out} of {total} that were looked at in {name} "
            f"reach out of them: task.box_format says how they are stored"
        )
    if lost:
        say(
            f"{lost} of {total} boxes that were looked at in {name} have no pixel inside their "
            f"image: they are left out"
        )
