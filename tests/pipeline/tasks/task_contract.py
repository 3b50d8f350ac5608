"""What the engine rests on in every task: a test class inherits it and gives a task and a batch."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from paretopath.errors import InvalidValueError
from paretopath.tasks.resampling import draw_resamples
from paretopath.tasks.task import ResamplingScorer, Task


class TaskContract:
    """Subclass it; :meth:`batch` has at least four images."""

    def task(self) -> Task:
        """The task, its losses those of a recipe that says nothing."""
        raise NotImplementedError

    def batch(self) -> tuple[Tensor, Any]:
        """A model's output, and what was right."""
        raise NotImplementedError

    def test_it_has_a_name_and_a_metric_for_people(self) -> None:
        assert self.task().name and self.task().metric

    def test_losses_are_scalars_that_send_a_gradient(self) -> None:
        output, target = self.batch()
        output, teacher = output.clone().requires_grad_(), output.flip(0)
        for loss in (
            self.task().loss(output, target),
            self.task().distillation_loss(output, teacher, target),
        ):
            assert loss.shape == () and math.isfinite(loss.item())
            (gradient,) = torch.autograd.grad(loss, output)
            assert gradient.isfinite().all() and gradient.abs().sum() > 0

    def test_a_teacher_gets_no_gradient(self) -> None:
        output, target = self.batch()
        output, teacher = output.clone().requires_grad_(), output.flip(0).requires_grad_()
        self.task().distillation_loss(output, teacher, target).backward()  # type: ignore[no-untyped-call]
        assert output.grad is not None and teacher.grad is None

    def test_confidence_is_a_share_for_each_image_and_nought_for_what_is_no_number(self) -> None:
        output, _ = self.batch()
        output = output.clone()
        output[0].flatten()[0] = math.nan
        confidence = self.task().confidence(output)
        assert confidence.shape == (len(output),)
        assert confidence[0] == 0 and ((confidence[1:] > 0) & (confidence[1:] <= 1)).all()

    def test_confidence_of_an_image_does_not_depend_on_the_others(self) -> None:
        output, _ = self.batch()
        alone = torch.cat([self.task().confidence(one[None]) for one in output])
        torch.testing.assert_close(self.task().confidence(output), alone)

    def test_batches_add_up(self) -> None:
        output, target = self.batch()
        whole, parts = self.task().scorer(), self.task().scorer()
        whole.update(output, target)
        parts.update(output[:1], target[:1])
        parts.update(output[1:], target[1:])
        assert whole.compute() == parts.compute()
        assert whole.compute().samples == len(output) and 0 <= whole.compute().value <= 1

    @pytest.mark.parametrize("wrong", [math.nan, math.inf])
    def test_outputs_that_are_not_finite_get_no_score(self, wrong: float) -> None:
        output, target = self.batch()
        scorer = self.task().scorer()
        scorer.update(output, target)
        output = output.clone()
        output[0].flatten()[0] = wrong
        scorer.update(output, target)
        with pytest.raises(InvalidValueError, match="finite"):
            scorer.compute()

    def test_resamples_are_scored_as_sets_of_images(self) -> None:
        output, target = self.batch()
        scorer = self.task().scorer()
        scorer.update(output, target)
        if not isinstance(scorer, ResamplingScorer):
            pytest.skip("its scorers can't be resampled")
        images = len(output)
        one_each = np.ones((1, images))
        assert scorer.resampled(one_each) == pytest.approx([scorer.compute().value])
        drawn = draw_resamples(images, seed=0, number=3)
        chosen = [np.repeat(np.arange(images), row.astype(int)) for row in drawn]
        for index, value in zip(chosen, scorer.resampled(drawn), strict=True):
            again = self.task().scorer()
            again.update(output[index], target[index])
            assert value == pytest.approx(again.compute().value)
