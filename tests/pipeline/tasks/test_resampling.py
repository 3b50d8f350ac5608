"""Resamples: the same seed gives the same, for good."""

import numpy as np
import pytest

from paretopath.tasks.resampling import draw_resamples
from paretopath.tasks.segmentation.mean_iou import bootstrap_error


@pytest.mark.parametrize(
    ("seed", "first", "last"),
    [
        (0, [1, 0, 0, 0, 2, 3, 1, 1, 1, 2, 0, 1], [0, 1, 1, 2, 2, 0, 3, 0, 1, 0, 1, 1]),
        ([5, 12], [2, 2, 2, 0, 1, 1, 2, 1, 0, 1, 0, 0], [1, 0, 2, 2, 1, 1, 0, 2, 2, 0, 0, 1]),
    ],
)
def test_resamples_are_fixed_by_the_seed(
    seed: int | list[int], first: list[int], last: list[int]
) -> None:
    # golden: of racing and sensitivity when each drew its own; a search that goes on needs the same
    draws = draw_resamples(12, seed=seed)
    assert draws.shape == (200, 12) and (draws.sum(1) == 12).all()
    assert draws[0].tolist() == first and draws[-1].tolist() == last


def test_the_error_of_mean_iou_rests_on_the_same_resamples() -> None:
    rng = np.random.default_rng(3)
    counts = rng.integers(0, 50, (12, 3, 4))
    counts[:, 1:] += counts[:, :1]
    assert bootstrap_error(counts) == pytest.approx(0.0189118190127024, rel=1e-12)
    assert bootstrap_error(counts, resamples=50, seed=7) == pytest.approx(0.0218074628, rel=1e-8)
