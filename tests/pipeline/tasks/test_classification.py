"""Classification: its losses against their equations, its accuracy and how far to trust it."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from paretopath.errors import InvalidValueError
from paretopath.recipe import TrainSettings
from paretopath.tasks.classification.section import ClassificationSection
from paretopath.tasks.classification.task import Classification, proportion_error
from paretopath.tasks.registry import create_task
from paretopath.tasks.task import Task
from tests.pipeline.tasks.task_contract import TaskContract


@pytest.fixture
def logits() -> torch.Tensor:
    return torch.randn(6, 5, generator=torch.Generator().manual_seed(0))


LABELS = torch.tensor([0, 1, 2, 3, 4, 0])


def test_a_recipe_makes_the_task_with_its_training_losses() -> None:
    settings = TrainSettings(label_smoothing=0.1, distillation_weight=0.3)
    task: Task = create_task(ClassificationSection(), training=settings)
    assert task == Classification(label_smoothing=0.1, distillation_weight=0.3)
    assert (task.name, task.metric) == ("classification", "top-1")


def test_the_loss_is_smoothed_cross_entropy(logits: torch.Tensor) -> None:
    truth = 0.9 * F.one_hot(LABELS, 5) + 0.1 / 5
    expected = -(truth * logits.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(Classification(label_smoothing=0.1).loss(logits, LABELS), expected)


@pytest.mark.parametrize("weight", [0.0, 0.4, 1.0])
def test_distillation_is_hintons_equation(logits: torch.Tensor, weight: float) -> None:
    teacher = logits.flip(0) * 2
    task = Classification(distillation_weight=weight, distillation_temperature=3.0)
    p, q = (teacher / 3).softmax(1), (logits / 3).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    expected = (1 - weight) * F.cross_entropy(logits, LABELS) + weight * 9 * divergence
    torch.testing.assert_close(task.distillation_loss(logits, teacher, LABELS), expected)


def test_a_student_like_its_teacher_has_no_distillation_loss(logits: torch.Tensor) -> None:
    task = Classification(distillation_weight=1.0)
    assert task.distillation_loss(logits, logits, LABELS) == pytest.approx(0, abs=1e-6)


def test_distillation_sends_no_gradient_to_the_teacher(logits: torch.Tensor) -> None:
    student, teacher = logits.clone().requires_grad_(), logits.flip(0).requires_grad_()
    Classification().distillation_loss(student, teacher, LABELS).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None and teacher.grad is None


def test_a_model_is_as_sure_of_an_image_as_its_likeliest_class_is_probable() -> None:
    output = torch.tensor([[0.0, 0.0], [math.log(3), 0.0], [math.nan, 0.0]])
    torch.testing.assert_close(Classification().confidence(output), torch.tensor([0.5, 0.75, 0.0]))


def test_the_size_of_the_soft_gradient_hardly_depends_on_the_temperature() -> None:
    small = torch.randn(64, 10, generator=torch.Generator().manual_seed(1)) * 0.1
    norms = []
    for temperature in (4.0, 16.0):
        student = small.clone().requires_grad_()
        task = Classification(distillation_weight=1.0, distillation_temperature=temperature)
        loss = task.distillation_loss(student, small.flip(0), torch.zeros(64, dtype=torch.long))
        loss.backward()  # type: ignore[no-untyped-call]
        assert student.grad is not None
        norms.append(float(student.grad.norm()))
    assert norms[0] == pytest.approx(norms[1], rel=0.05)


def test_losses_of_half_precision_logits_are_computed_in_float32(logits: torch.Tensor) -> None:
    half = logits.to(torch.bfloat16)
    task = Classification()
    assert task.loss(half, LABELS).dtype == torch.float32
    assert task.distillation_loss(half, half.flip(0), LABELS).dtype == torch.float32


def test_top1_counts_over_batches_of_any_size(logits: torch.Tensor) -> None:
    scorer = Classification().scorer()
    right = logits.argmax(1) == LABELS
    for start, end in ((0, 4), (4, 5), (5, 6)):
        scorer.update(logits[start:end], LABELS[start:end])
    score = scorer.compute()
    assert score.value == pytest.approx(float(right.float().mean()))
    assert score.samples == 6
    assert score.error == proportion_error(int(right.sum()), 6)


def test_logits_that_are_not_finite_are_refused(logits: torch.Tensor) -> None:
    for bad in (math.nan, math.inf, -math.inf):
        scorer = Classification().scorer()
        scorer.update(logits, LABELS)
        broken = logits.clone()
        broken[2, 3] = bad
        scorer.update(broken, LABELS)
        scorer.update(logits, LABELS)
        with pytest.raises(InvalidValueError, match="logits must be finite"):
            scorer.compute()


def test_no_images_are_no_score() -> None:
    with pytest.raises(InvalidValueError, match="at least one image, but got none"):
        Classification().scorer().compute()


def test_the_error_is_the_binomial_one_where_that_works() -> None:
    assert proportion_error(5000, 10_000) == pytest.approx(0.005, rel=1e-3)
    assert proportion_error(9700, 10_000) == pytest.approx(math.sqrt(0.97 * 0.03 / 1e4), rel=0.02)


@pytest.mark.parametrize("samples", [20, 359])
def test_two_errors_around_a_share_hold_the_truth_about_as_often_as_they_claim(
    samples: int,
) -> None:
    rng = np.random.default_rng(0)
    for truth in (0.9, 0.97, 0.99):
        right = rng.binomial(samples, truth, size=2000)
        inside = []
        for count in right.tolist():
            middle = (count + 2) / (samples + 4)
            inside.append(abs(middle - truth) <= 1.96 * proportion_error(count, samples))
        assert np.mean(inside) > 0.92


def test_the_error_is_never_nothing() -> None:
    assert proportion_error(359, 359) > 0.003
    assert proportion_error(0, 359) == pytest.approx(proportion_error(359, 359))


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"label_smoothing": 1.0}, r"label_smoothing must be in \[0, 1\), but got 1.0"),
        ({"distillation_weight": -0.1}, r"distillation_weight must be in \[0, 1\], but got -0.1"),
        ({"distillation_temperature": 0.0}, "must be over 0 and finite, but got 0.0"),
        ({"distillation_temperature": math.nan}, "must be over 0 and finite, but got nan"),
    ],
)
def test_options_out_of_range_are_refused(options: dict[str, float], expected: str) -> None:
    with pytest.raises(InvalidValueError, match=expected):
        Classification(**options)


class TestClassification(TaskContract):
    def task(self) -> Task:
        return create_task(ClassificationSection(), training=TrainSettings())

    def batch(self) -> tuple[torch.Tensor, torch.Tensor]:
        return torch.randn(6, 5, generator=torch.Generator().manual_seed(0)), LABELS
