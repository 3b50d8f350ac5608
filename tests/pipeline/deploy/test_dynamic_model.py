"""The dynamic model: budgets pick paths, confidence picks exits."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from paretopath.deploy import DynamicModel, choose_threshold
from paretopath.errors import InvalidValueError, RunDirectoryError
from paretopath.run import Run, build_space, open_images


@pytest.fixture(scope="module")
def dynamic(searched: Path) -> DynamicModel:
    return DynamicModel.load(searched)


@pytest.fixture(scope="module")
def batch(searched: Path) -> tuple[torch.Tensor, torch.Tensor]:
    recipe = Run.open(searched).recipe
    data = open_images(recipe, build_space(recipe))
    images, labels = next(iter(data.loader("validation")))
    return images, labels


def test_a_budget_picks_the_most_accurate_path_that_fits(dynamic: DynamicModel, batch) -> None:
    for point in dynamic.points:
        chosen = dynamic.choose(energy_mj=point.energy_mj)
        fitting = [p for p in dynamic.points if p.energy_mj <= point.energy_mj]
        assert chosen.accuracy == max(p.accuracy for p in fitting)
        assert chosen.energy_mj <= point.energy_mj
    out = dynamic(batch[0], energy_mj=dynamic.points[0].energy_mj)
    static = dynamic.model.extract(dynamic.path)
    with torch.inference_mode():
        torch.testing.assert_close(out, static(batch[0]), rtol=1e-5, atol=1e-5)


def test_no_budget_picks_the_most_accurate_path(dynamic: DynamicModel) -> None:
    assert dynamic.choose().accuracy == max(p.accuracy for p in dynamic.points)


def test_a_budget_below_every_path_says_what_the_least_is(dynamic: DynamicModel) -> None:
    with pytest.raises(
        InvalidValueError,
        match=r"no path keeps to a budget of .*J of energy; the least .*J of energy$",
    ):
        dynamic.choose(energy_mj=1e-12)


def test_switching_copies_nothing(dynamic: DynamicModel, batch) -> None:
    before = {name: p.data_ptr() for name, p in dynamic.model.named_parameters()}
    for point in dynamic.points:
        dynamic(batch[0][:2], energy_mj=point.energy_mj)
    assert {name: p.data_ptr() for name, p in dynamic.model.named_parameters()} == before


def exits_alone(dynamic: DynamicModel, images: torch.Tensor) -> torch.Tensor:
    """(n_exits, B, classes) the logits of the fullest path to each exit."""
    outs = []
    for value in dynamic.model.space["exit"].values:
        with torch.inference_mode(), dynamic.model.active({"exit": value}):
            outs.append(dynamic.model(images))
    return torch.stack(outs)


@pytest.mark.parametrize("threshold", [0.2, 0.4, 0.6, 1.0])
def test_each_image_leaves_where_it_would_alone(
    dynamic: DynamicModel, batch, threshold: float
) -> None:
    images = batch[0]
    logits, taken = dynamic.classify_early(images, threshold=threshold)
    alone = exits_alone(dynamic, images)
    sure = alone.softmax(-1).amax(-1) >= threshold
    sure[-1] = True
    expected = sure.int().argmax(0)
    assert taken.tolist() == expected.tolist()
    picked = alone[expected, torch.arange(len(images))]
    torch.testing.assert_close(logits, picked, rtol=1e-4, atol=1e-5)


def test_early_exits_can_be_fewer_than_the_model_has(dynamic: DynamicModel, batch) -> None:
    _, taken = dynamic.classify_early(batch[0], threshold=0.3, exits=["exits.2"])
    assert set(taken.tolist()) <= {1, 2}


def test_a_narrow_path_ends_at_its_own_exit(dynamic: DynamicModel, batch) -> None:
    path = {"exit": 2, "blocks.0.mlp_ratio": 0.5}
    logits, taken = dynamic.classify_early(batch[0], threshold=1.0, path=path)
    with torch.inference_mode(), dynamic.model.active(path):
        torch.testing.assert_close(logits, dynamic.model(batch[0]))
    assert set(taken.tolist()) == {1}


def test_a_sweep_tells_what_each_threshold_would_give(dynamic: DynamicModel, batch) -> None:
    images, labels = batch
    sweep = dynamic.sweep_thresholds([(images, labels)], [0.3, 0.6, 1.0])
    for result in sweep:
        logits, taken = dynamic.classify_early(images, threshold=result.threshold)
        assert result.accuracy == pytest.approx(
            (logits.argmax(-1) == labels).double().mean().item()
        )
        assert result.mean_exit == pytest.approx(taken.double().mean().item())
        assert sum(result.shares) == pytest.approx(1)
    chosen = choose_threshold(sweep, max_loss=1.0)
    assert chosen.threshold == 0.3
    assert choose_threshold(sweep, max_loss=0.0).accuracy >= sweep[-1].accuracy


def test_thresholds_outside_their_range_are_refused(dynamic: DynamicModel, batch) -> None:
    with pytest.raises(InvalidValueError, match=r"threshold must lie in \(0, 1\], but got 0"):
        dynamic.classify_early(batch[0], threshold=0)


def test_what_the_model_does_not_take_is_refused_before_it_runs(dynamic: DynamicModel) -> None:
    for images, problem in (
        (torch.zeros(1, 3, 8, 8), "must have shape"),
        (torch.zeros(0, 1, 8, 8), "at least one image"),
        (torch.zeros(1, 1, 8, 8, dtype=torch.uint8), "must be float32"),
    ):
        with pytest.raises(InvalidValueError, match=problem):
            dynamic(images)
        with pytest.raises(InvalidValueError, match=problem):
            dynamic.classify_early(images, threshold=0.5)


def test_a_picture_goes_in_through_its_preprocessing(dynamic: DynamicModel) -> None:
    picture = Image.fromarray(np.arange(0, 256, 4, dtype=np.uint8).reshape(8, 8))
    made = dynamic.preprocess(picture)
    expected = (torch.arange(0, 256, 4).reshape(1, 1, 8, 8) / 255 - 0.305) / 0.376
    torch.testing.assert_close(made, expected)
    assert dynamic(made).shape == (1, 10)


def test_a_folder_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match="is not a run directory"):
        DynamicModel.load(tmp_path)
