"""Segmentation: its losses against their equations, mIoU against torchmetrics."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torchmetrics.classification import MulticlassAccuracy, MulticlassJaccardIndex

from paretopath.errors import InvalidValueError
from paretopath.recipe import TrainSettings
from paretopath.tasks.registry import create_task
from paretopath.tasks.segmentation.mean_iou import MeanIoU, bootstrap_error, mean_iou
from paretopath.tasks.segmentation.section import SegmentationSection
from paretopath.tasks.segmentation.task import Segmentation
from paretopath.tasks.segmentation.windows import SlidingWindow
from paretopath.tasks.task import Task
from tests.pipeline.tasks.task_contract import TaskContract


def batch(seed: int = 0, *, images: int = 4, classes: int = 5) -> tuple[Tensor, Tensor]:
    """Logits at a quarter of the masks' resolution; some pixels ignored, one class absent."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(images, classes, 4, 6, generator=generator)
    logits[:, classes - 1] = -10.0
    masks = torch.randint(0, classes - 1, (images, 16, 24), generator=generator)
    masks[torch.rand(masks.shape, generator=generator) < 0.2] = 255
    return logits, masks


def upsampled(logits: Tensor) -> Tensor:
    return F.interpolate(logits, size=(16, 24), mode="bilinear", align_corners=False)


def test_a_recipe_makes_the_task() -> None:
    options = SegmentationSection(ignore_index=0, window=(32, 48))
    task: Task = create_task(options, training=TrainSettings(label_smoothing=0.1))
    expected = Segmentation(
        ignore_index=0, label_smoothing=0.1, window=SlidingWindow((32, 48), (21, 32))
    )
    assert task == expected
    assert (task.name, task.metric) == ("segmentation", "mIoU")


def test_the_loss_is_cross_entropy_of_resized_logits_without_ignored_pixels() -> None:
    logits, masks = batch()
    counted = masks != 255
    losses = -upsampled(logits).log_softmax(1).movedim(1, -1)[counted]
    expected = losses.gather(1, masks[counted][:, None]).mean()
    torch.testing.assert_close(Segmentation().loss(logits, masks), expected)


def test_a_batch_without_a_counted_pixel_has_no_loss() -> None:
    logits, masks = batch()
    logits.requires_grad_()
    loss = Segmentation().loss(logits, torch.full_like(masks, 255))
    loss.backward()
    assert loss == 0 and logits.grad is not None and (logits.grad == 0).all()


def test_a_model_is_as_sure_of_an_image_as_of_its_pixels_on_average() -> None:
    logits = torch.zeros(2, 3, 4, 4)
    logits[0, 1, :2] = math.log(4)  # two thirds sure of half the pixels, a third of the rest
    logits[1, 0, 0, 0] = math.nan
    torch.testing.assert_close(Segmentation().confidence(logits), torch.tensor([0.5, 0.0]))


def test_distillation_is_hintons_equation_a_pixel() -> None:
    logits, masks = batch()
    teacher, _ = batch(1)
    task = Segmentation(distillation_weight=0.3, distillation_temperature=4.0)
    p, q = (x.div(4).softmax(1) for x in (teacher, logits))
    divergence = (p * (p / q).log()).sum(1).mean()
    expected = 0.7 * task.loss(logits, masks) + 0.3 * 16 * divergence
    torch.testing.assert_close(task.distillation_loss(logits, teacher, masks), expected)


def test_mean_iou_and_pixel_accuracy_are_torchmetrics() -> None:
    scorer = Segmentation().scorer()
    jaccard = MulticlassJaccardIndex(5, ignore_index=255)
    accuracy = MulticlassAccuracy(5, average="micro", ignore_index=255)
    for seed in range(3):
        logits, masks = batch(seed)
        scorer.update(logits, masks)
        jaccard.update(upsampled(logits), masks)
        accuracy.update(upsampled(logits), masks)
    score = scorer.compute()
    assert score.value == pytest.approx(jaccard.compute().item(), abs=1e-6)
    assert scorer.pixel_accuracy() == pytest.approx(accuracy.compute().item(), abs=1e-6)
    assert score.samples == 12


def test_the_error_is_that_of_samples_of_images() -> None:
    """The bootstrap's error against the deviation over many data sets of the same kind."""
    rng = np.random.default_rng(0)

    def counts(images: int) -> np.ndarray:
        true = rng.integers(50, 200, (images, 4))
        skill = rng.beta(6, 3, (images, 1))
        right = (true * skill).astype(np.int64)
        return np.stack([right, true, true], axis=1)

    errors = [bootstrap_error(counts(60), seed=seed) for seed in range(20)]
    deviation = np.std([mean_iou(counts(60).sum(0)) for _ in range(400)])
    assert np.mean(errors) == pytest.approx(deviation, rel=0.15)


def test_the_same_images_give_the_same_error() -> None:
    logits, masks = batch()
    scorers = [MeanIoU(), MeanIoU()]
    for scorer in scorers:
        scorer.update(logits, masks)
    assert scorers[0].compute() == scorers[1].compute()


def test_counts_come_image_by_image() -> None:
    logits, masks = batch()
    together, alone = MeanIoU(), MeanIoU()
    together.update(logits, masks)
    for i in range(4):
        alone.update(logits[i : i + 1], masks[i : i + 1])
    np.testing.assert_array_equal(together.counts, alone.counts)


def test_logits_that_are_not_finite_are_refused() -> None:
    logits, masks = batch()
    logits[1, 2, 0, 0] = float("nan")
    scorer = MeanIoU()
    scorer.update(logits, masks)
    with pytest.raises(InvalidValueError, match="finite"):
        scorer.compute()


def test_no_images_or_no_pixels_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one image"):
        MeanIoU().compute()
    logits, masks = batch()
    scorer = MeanIoU()
    scorer.update(logits, torch.full_like(masks, 255))
    with pytest.raises(InvalidValueError, match="at least one pixel"):
        scorer.compute()


def test_windows_of_a_pointwise_model_join_to_its_whole_output() -> None:
    images = torch.randn(2, 3, 20, 33, generator=torch.Generator().manual_seed(0))
    window = SlidingWindow((8, 12), (5, 8))
    cut = window.cut(images)
    assert cut.shape == (2 * len(window.corners(20, 33)), 3, 8, 12)
    torch.testing.assert_close(window.join(cut, (20, 33)), images)


def test_overlapping_windows_are_averaged() -> None:
    window = SlidingWindow((2, 2), (1, 1))
    corners = window.corners(2, 3)
    assert corners == [(0, 0), (0, 1)]
    logits = torch.stack([torch.zeros(1, 2, 2), torch.ones(1, 2, 2)])
    expected = torch.tensor([[0.0, 0.5, 1.0]] * 2)
    torch.testing.assert_close(window.join(logits, (2, 3))[0, 0], expected)


def test_sliding_scores_equal_whole_scores_of_a_pointwise_model() -> None:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(2, 5, 16, 24, generator=generator)
    masks = torch.randint(0, 5, (2, 16, 24), generator=generator)
    window = SlidingWindow((8, 8), (4, 8))
    whole, sliding = MeanIoU(), MeanIoU(window=window)
    whole.update(images, masks)
    sliding.update(window.cut(images), masks)
    assert sliding.compute() == whole.compute()


def test_an_image_smaller_than_its_window_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least as large"):
        SlidingWindow((8, 8), (4, 4)).corners(7, 9)
    with pytest.raises(InvalidValueError, match="stride"):
        SlidingWindow((8, 8), (9, 4))


def test_labels_that_hold_one_class_and_void_give_a_finite_mean_over_what_counts() -> None:
    # mmsegmentation#3787: binary masks whose foreground is what is ignored
    masks = torch.zeros(4, 8, 8, dtype=torch.int64)
    masks[:, :, 4:] = 255
    masks[2] = 255  # one image is void everywhere
    logits = torch.zeros(4, 3, 8, 8)
    logits[:, 0] = 1.0
    logits[:, 1, :, 4:] = 2.0  # a class that is only predicted where nothing counts
    scorer = Segmentation().scorer()
    scorer.update(logits, masks)
    score = scorer.compute()
    assert (score.value, score.samples) == (1.0, 4) and math.isfinite(score.error)
    assert scorer.counted == [0]


def test_a_class_that_is_only_predicted_counts_as_nought() -> None:
    masks = torch.zeros(1, 4, 4, dtype=torch.int64)
    logits = torch.zeros(1, 3, 4, 4)
    logits[:, 0] = 1.0
    logits[:, 2, 0] = 2.0  # a quarter of the pixels
    scorer = Segmentation().scorer()
    scorer.update(logits, masks)
    assert scorer.counted == [0, 2]
    assert scorer.compute().value == pytest.approx((0.75 + 0.0) / 2)


class TestSegmentation(TaskContract):
    def task(self) -> Task:
        return create_task(SegmentationSection(), training=TrainSettings())

    def batch(self) -> tuple[Tensor, Tensor]:
        return batch()
