"""Resamples of a set of images: what the error of any accuracy, or of a difference, rests on.

The bootstrap (Efron, "Bootstrap methods", Annals of Statistics 7(1), 1979): images are drawn with
replacement, as many as there are; how far an accuracy spreads over such resamples estimates how far
it spreads over other sets of images. Two accuracies on the same resamples are paired: the spread of
their difference leaves out what is hard for both.
"""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

RESAMPLES = 200
"""Behind a standard error: the error of that error is then 1 / sqrt(2 * 200), 5 %."""

Draws = npt.NDArray[np.float64]


def draw_resamples(images: int, *, seed: int | Sequence[int], number: int = RESAMPLES) -> Draws:
    """(number, images) how often each resample holds each image.

    Args:
        images: at least one.
        seed: of the draws.
        number: of resamples.
    """
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(images, np.full(images, 1 / images), size=number)
    return drawn.astype(np.float64)
