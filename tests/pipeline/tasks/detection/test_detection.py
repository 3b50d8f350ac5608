"""The task: mAP as COCO's own evaluation gives it, losses of the exit's head, whole runs."""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paretopath.errors import InvalidValueError
from paretopath.evaluation.evaluator import Evaluator
from paretopath.recipe import Data, TrainSettings
from paretopath.tasks.detection.mean_average_precision import MeanAveragePrecision
from paretopath.tasks.detection.objects import (
    NOTHING,
    Detections,
    Objects,
    PaddedImages,
    RawDetections,
)
from paretopath.tasks.detection.section import DetectionSection
from paretopath.tasks.detection.task import Detection
from paretopath.tasks.registry import open_data
from paretopath.tasks.resampling import draw_resamples
from paretopath.tasks.task import ResamplingScorer
from paretopath.training.retrain import SharedTraining
from tests.pipeline.tasks.detection.grid_detector import GridDetections, GridDetector

SCALE = (2.0, 3.0)  # input pixels of an original one, (y, x)


@dataclass
class Found:
    """An output whose detections are known."""

    detections: Detections

    def predict(self) -> Detections:
        return self.detections


def scatter(
    images: int, places: int, objects: int, classes: int, *, seed: int = 0, ties: bool = True
) -> tuple[Objects, Detections]:
    """Objects of all sizes, some of them crowds, and detections near most of them."""
    generator = torch.Generator().manual_seed(seed)

    def rand(*shape: int) -> Tensor:
        return torch.rand(*shape, generator=generator)

    size = (rand(images, objects, 2) * 4).exp() * 5
    corner = rand(images, objects, 2) * 400
    boxes = torch.cat([corner, corner + size], -1)
    labels = (rand(images, objects) * classes).long()
    labels[rand(images, objects) < 0.3] = NOTHING
    labels = labels.sort(1, descending=True)[0]
    boxes[labels == NOTHING] = 0
    crowd = (rand(images, objects) < 0.1) & (labels != NOTHING)
    chosen = (rand(images, places) * objects).long()
    found = boxes.gather(1, chosen[..., None].expand(-1, -1, 4))
    found = found + torch.randn(found.shape, generator=generator) * 3
    found[..., 2:] = torch.maximum(found[..., 2:], found[..., :2] + 1)
    other = (rand(images, places) * classes).long()
    classified = torch.where(rand(images, places) < 0.2, other, labels.gather(1, chosen))
    scores = rand(images, places)
    if ties:
        scores = (scores * 50).round() / 50
    pixels = torch.tensor([SCALE[1], SCALE[0]] * 2)
    targets = Objects(
        boxes * pixels,
        labels,
        crowd,
        size.prod(-1) * (labels != NOTHING),
        torch.tensor(SCALE).expand(images, 2),
        torch.full((images, 2), 700),
    )
    return targets, Detections(found * pixels, scores.masked_fill(classified < 0, 0), classified)


def published(targets: Objects, found: Detections, classes: int) -> Any:
    """The same by faster-coco-eval, in pixels of the original images."""
    library = pytest.importorskip("faster_coco_eval", reason="the extra detection is not installed")
    pixels = torch.tensor([SCALE[1], SCALE[0]] * 2)
    truth: list[dict[str, Any]] = []
    results: list[dict[str, Any]] = []
    for image in range(len(targets)):
        for place in (targets.labels[image] != NOTHING).nonzero().flatten().tolist():
            truth.append(
                {
                    "id": len(truth) + 1,
                    "image_id": image,
                    "category_id": int(targets.labels[image, place]),
                    "bbox": xywh(targets.boxes[image, place] / pixels),
                    "area": float(targets.areas[image, place]),
                    "iscrowd": int(targets.crowd[image, place]),
                }
            )
        for place in (found.labels[image] != NOTHING).nonzero().flatten().tolist():
            results.append(
                {
                    "image_id": image,
                    "category_id": int(found.labels[image, place]),
                    "bbox": xywh(found.boxes[image, place] / pixels),
                    "score": float(found.scores[image, place]),
                }
            )
    content = {
        "images": [{"id": image, "height": 700, "width": 700} for image in range(len(targets))],
        "annotations": truth,
        "categories": [{"id": number, "name": str(number)} for number in range(classes)],
    }
    coco = library.COCO(content)
    evaluation = library.COCOeval_faster(
        coco, coco.loadRes(results), iouType="bbox", print_function=lambda *args, **kwargs: None
    )
    evaluation.run()
    return evaluation


def xywh(box: Tensor) -> list[float]:
    x0, y0, x1, y1 = box.double().tolist()
    return [x0, y0, x1 - x0, y1 - y0]


def scored(targets: Objects, found: Detections, *, batch: int = 7) -> MeanAveragePrecision:
    scorer = MeanAveragePrecision()
    for start in range(0, len(targets), batch):
        part = slice(start, start + batch)
        scorer.update(Found(found[part]), targets[part])  # type: ignore[arg-type]
    return scorer


@pytest.mark.parametrize(
    ("images", "places", "objects", "classes"), [(40, 30, 8, 5), (12, 130, 12, 1), (5, 3, 2, 4)]
)
def test_figures_are_those_of_faster_coco_eval(
    images: int, places: int, objects: int, classes: int
) -> None:
    targets, found = scatter(images, places, objects, classes)
    summary = scored(targets, found).summary()
    evaluation = published(targets, found, classes)
    ours = [summary.ap, summary.ap50, summary.ap75, *summary.by_size.values()]
    for mine, theirs in zip(ours, evaluation.stats[:6], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-9) or (math.isnan(mine) and theirs == -1)
    precision = evaluation.eval["precision"][:, :, :, 0, -1]  # (overlaps, recalls, classes)
    for number, mine in summary.by_class.items():
        theirs = precision[..., number].mean()
        assert mine == pytest.approx(theirs, abs=1e-9) or (math.isnan(mine) and theirs == -1)


def test_a_score_on_resamples_is_that_of_the_images_drawn() -> None:
    targets, found = scatter(
        12, 20, 6, 3, ties=False
    )  # whose order images drawn twice would change
    scorer = scored(targets, found)
    assert isinstance(scorer, ResamplingScorer)
    draws = draw_resamples(12, seed=1, number=4)
    for row, value in zip(draws, scorer.resampled(draws), strict=True):
        chosen = torch.from_numpy(np.repeat(np.arange(12), row.astype(int)))
        alone = scored(targets[chosen], found[chosen]).compute()
        assert value == pytest.approx(alone.value, abs=1e-9)


def test_the_standard_error_shrinks_with_the_root_of_the_number_of_images() -> None:
    few, many = (scored(*scatter(images, 10, 4, 2)).compute() for images in (40, 160))
    assert many.error == pytest.approx(few.error / 2, rel=0.35)
    assert many.samples == 160


def test_perfect_detections_score_one_and_none_score_nought() -> None:
    targets, _ = scatter(6, 4, 5, 3)
    targets = Objects(
        targets.boxes,
        targets.labels,
        torch.zeros_like(targets.crowd),
        targets.areas,
        targets.scale,
        targets.original,
    )
    perfect = Detections(targets.boxes, torch.ones(6, 5), targets.labels)
    assert scored(targets, perfect).compute().value == pytest.approx(1)
    nothing = Detections(targets.boxes, torch.zeros(6, 5), torch.full((6, 5), NOTHING))
    assert scored(targets, nothing).compute().value == 0
    without_places = Detections(torch.zeros(6, 0, 4), torch.zeros(6, 0), torch.zeros(6, 0).long())
    assert scored(targets, without_places).compute().value == 0


def test_images_without_objects_count_their_wrong_detections() -> None:
    targets, found = scatter(8, 10, 4, 1)
    alone = scored(targets[:4], found[:4]).compute().value
    blank = targets[4:]
    blank = Objects(
        blank.boxes,
        torch.full_like(blank.labels, NOTHING),
        torch.zeros_like(blank.crowd),
        blank.areas,
        blank.scale,
        blank.original,
    )
    scorer = scored(targets[:4], found[:4])
    scorer.update(Found(found[4:]), blank)  # type: ignore[arg-type]
    assert scorer.compute().value < alone


@pytest.mark.parametrize("wrong", [math.nan, math.inf])
def test_a_box_or_score_that_is_not_finite_gets_no_score(wrong: float) -> None:
    targets, found = scatter(4, 5, 3, 2)
    for name in ("boxes", "scores"):
        parts = {"boxes": found.boxes.clone(), "scores": found.scores.clone()}
        used = (found.labels != NOTHING).nonzero()[0]
        parts[name][tuple(used)] = wrong
        with pytest.raises(InvalidValueError, match="finite"):
            scored(targets, Detections(**parts, labels=found.labels)).compute()


def test_nothing_to_be_found_is_no_score() -> None:
    targets, found = scatter(3, 4, 2, 2)
    with pytest.raises(InvalidValueError, match="at least one image"):
        MeanAveragePrecision().compute()
    blank = Objects(
        targets.boxes,
        torch.full_like(targets.labels, NOTHING),
        targets.crowd,
        targets.areas,
        targets.scale,
        targets.original,
    )
    with pytest.raises(InvalidValueError, match="at least one object"):
        scored(blank, found).compute()


@pytest.fixture(scope="module")
def scenes() -> Any:
    data = Data.model_validate({"source": "digit_scenes", "cache_mb": 0.0})
    return open_data(data, DetectionSection(), input_shape=(3, 64, 64), num_classes=10)


def batch_of(scenes: Any, images: int = 8) -> tuple[PaddedImages, Objects]:
    found: tuple[PaddedImages, Objects] = scenes.train.__getitems__(range(images))
    return found


def output_of(scenes: Any) -> tuple[GridDetections, Objects]:
    torch.manual_seed(0)
    images, targets = batch_of(scenes)
    with torch.no_grad():
        output: GridDetections = GridDetector(width=8).build()(images)
    return output, targets


def test_losses_are_the_heads_own_and_send_a_gradient(scenes: Any) -> None:
    output, targets = output_of(scenes)
    logits = output.logits.clone().requires_grad_()
    student = GridDetections(logits, output.sides, output.sizes)
    teacher = GridDetections(output.logits + 1, output.sides, output.sizes)
    task = Detection(distillation_weight=0.25)
    assert isinstance(student, RawDetections)
    whole = task.distillation_loss(student, teacher, targets)
    expected = 0.75 * student.loss(targets) + 0.25 * student.distill(teacher)
    assert whole.item() == pytest.approx(expected.item())
    (gradient,) = torch.autograd.grad(whole, logits)
    assert gradient.isfinite().all() and gradient.abs().sum() > 0
    assert Detection(distillation_weight=1).distillation_loss(
        student, teacher, targets
    ).item() == pytest.approx(student.distill(teacher).item())
    with pytest.raises(InvalidValueError, match="distillation_weight"):
        Detection(distillation_weight=1.5)


def test_confidence_is_that_of_the_surest_detection_of_each_image(scenes: Any) -> None:
    output, _ = output_of(scenes)
    confidence = Detection().confidence(output)
    assert torch.equal(confidence, output.logits.sigmoid().flatten(1).amax(1))
    alone = torch.cat([Detection().confidence(output[i : i + 1]) for i in range(len(output))])
    torch.testing.assert_close(confidence, alone)


def test_paths_of_a_detector_train_together_and_are_scored_through_a_prefix_tree(
    scenes: Any,
) -> None:
    torch.manual_seed(0)
    space = GridDetector(width=16)
    model = space.build()
    task = Detection()
    paths = [space.canonical({"exit": 1}), space.full]
    training = SharedTraining(model, paths, TrainSettings(epochs=1, warmup_epochs=0.5), task)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    images, targets = batch_of(scenes, 32)
    model.train()
    losses = []
    for _ in range(30):
        loss = training.training_step((images, targets), 0)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]
    model.eval()
    batches = [(PaddedImages(images.pixels, images.sizes), targets)]
    together = Evaluator(model, batches, task)(paths)
    for path, score in zip(paths, together, strict=True):
        assert score == Evaluator(model, batches, task)([path])[0]
        static = model.extract(path)
        scorer = task.scorer()
        scorer.update(static(images), targets)
        assert scorer.compute().value == pytest.approx(score.value, abs=1e-6)  # type: ignore[union-attr]
