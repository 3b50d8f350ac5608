"""How the accuracies of a run are measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from paretopath.calibration.moments import draw
from paretopath.devices import has_bfloat16
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.batch_norm import batch_norms
from paretopath.elastic.batched import concatenated
from paretopath.elastic.own import OwnFolder
from paretopath.elastic.prefixes import settled_steps
from paretopath.elastic.repair import Repair, images_that_fit, repairable
from paretopath.evaluation.batch_norm import Recalibration, settle_statistics
from paretopath.evaluation.evaluator import Batch, Evaluator, score_model
from paretopath.evaluation.fitted import Fit, FittedEvaluator
from paretopath.paths import ExecutionPath
from paretopath.recipe import Recipe
from paretopath.tasks.task import Score, Task

if TYPE_CHECKING:
    from paretopath.data import DataSplits, SplitName

BATCH_NORM_IMAGES = 256  # on which a path's statistics are measured, if the recipe does not say


@dataclass(frozen=True)
class Scoring:
    """Scores models on a run's images.

    Attributes:
        space: of the models.
        data: the images.
        task: what an accuracy is.
        device: where forward passes run.
        precision: of forward passes; None for the weights' own.
        batch_norm_images: on how many images a path's own batch-norm statistics are measured; None:
            on :data:`BATCH_NORM_IMAGES` where the model's family or its training asks for them.
        repair_images: on how many images a path is re-solved before it is scored; 0: never.
        repair_bytes: that a walk of these images down the full path may take: fewer walk if all
            take more.
        seed: of the draw of these images.
    """

    space: ElasticSpace
    data: "DataSplits"
    task: Task
    device: torch.device
    precision: torch.dtype | None
    batch_norm_images: int | None
    repair_images: int
    repair_bytes: float
    seed: int
    _drawn: dict[int, list[Batch]] = field(default_factory=dict, init=False, repr=False)

    @classmethod
    def of(
        cls,
        recipe: Recipe,
        space: ElasticSpace,
        data: "DataSplits",
        task: Task,
        device: torch.device,
    ) -> "Scoring":
        """As a recipe says it."""
        wanted = recipe.accuracy.precision
        half = wanted == "bfloat16" or (wanted == "auto" and has_bfloat16(device))
        return cls(
            space,
            data,
            task,
            device,
            torch.bfloat16 if half else None,
            recipe.calibration.batch_norm_images,
            recipe.calibration.images if recipe.calibration.repair else 0,
            recipe.calibration.repair_mb * 2**20,
            recipe.calibration.seed,
        )

    def evaluator(
        self,
        model: ElasticModel,
        split: "SplitName",
        *,
        shared: bool = False,
        kept: OwnFolder | None = None,
    ) -> Evaluator | FittedEvaluator:
        """Scores paths of a model on ``validation`` or ``test``, each with what is fitted to it.

        Args:
            model: elastic.
            split: which images.
            shared: whether shared retraining left the weights, with statistics of all its paths
                mixed.
            kept: where what paths have for themselves is kept, and taken from.
        """
        evaluator = Evaluator(
            model,
            self.data.loader(split),
            self.task,
            device=self.device,
            precision=self.precision,
        )
        return self.fitted(evaluator, shared=shared, kept=kept)

    def fitted(
        self,
        evaluator: Evaluator,
        *,
        shared: bool = False,
        kept: OwnFolder | None = None,
    ) -> Evaluator | FittedEvaluator:
        """The same evaluator for paths that have something for themselves, where the recipe or the
        family asks for it; see :meth:`evaluator`.
        """
        fit = self._fit(evaluator.model, shared)
        return evaluator if fit is None else FittedEvaluator(evaluator, fit, kept=kept)

    def _fit(self, model: ElasticModel, shared: bool) -> Fit | None:
        """What finds the statistics and weights of single paths; None where they have none."""
        statistics = self.statistics_images(model, shared=shared)
        if self.repair_images and not shared and repairable(model):

            @cache
            def repair() -> Repair:  # where everything is kept, no image is needed
                return Repair(
                    model,
                    self._repair_images(model).to(self.device),
                    measure=bool(statistics),
                    settled=settled_steps(model, self.space),
                    seed=self.seed,
                )

            return lambda paths: repair()(paths)
        if not statistics:
            return None
        return Recalibration(
            model,
            self._calibration_batches(statistics),
            trained_on=None if shared else self.space.full,
        )

    def statistics_images(self, model: ElasticModel, *, shared: bool = False) -> int:
        """On how many images the batch-norm statistics of each path are measured before it is
        scored; 0 where paths are scored with the model's own.
        """
        images = self.batch_norm_images
        if images is None:
            images = BATCH_NORM_IMAGES if shared or self.space.batch_norm_per_path else 0
        return images if batch_norms(model) else 0

    def settle(self, model: ElasticModel, paths: Sequence[ExecutionPath]) -> None:
        """Measures the model's own batch-norm statistics on the fullest paths, once trained."""
        if batch_norms(model):
            images = self.batch_norm_images or BATCH_NORM_IMAGES
            settle_statistics(model, paths, self._calibration_batches(images))

    def score(self, module: nn.Module, split: "SplitName") -> Score:
        """The score of a plain model on one split."""
        return score_model(module, self.data.loader(split), self.task, device=self.device)

    def _repair_images(self, model: ElasticModel) -> Tensor:
        """As many of the images to re-solve on as fit into the memory."""
        ((image, _),) = self._calibration_batches(1)
        fitting = images_that_fit(model, self.space.full, image.to(self.device), self.repair_bytes)
        batches = self._calibration_batches(min(self.repair_images, fitting))
        images: Tensor = concatenated([x for x, _ in batches])
        return images

    def _calibration_batches(self, images: int) -> Sequence[Batch]:
        if images not in self._drawn:
            loader = self.data.loader("calibration", shuffle_seed=self.seed)
            self._drawn[images] = list(draw(loader, images))
        return self._drawn[images]
