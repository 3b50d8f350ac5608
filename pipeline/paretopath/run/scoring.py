"""How the accuracies of a run are measured."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn

from paretopath.calibration.moments import draw
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.batch_norm import StatisticsFolder, batch_norms
from paretopath.evaluation.batch_norm import RecalibratingEvaluator
from paretopath.evaluation.evaluator import Batch, Evaluator, score_model
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
        seed: of the draw of these images.
    """

    space: ElasticSpace
    data: "DataSplits"
    task: Task
    device: torch.device
    precision: torch.dtype | None
    batch_norm_images: int | None
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
        half = wanted == "bfloat16" or (wanted == "auto" and device.type == "cuda")
        return cls(
            space,
            data,
            task,
            device,
            torch.bfloat16 if half else None,
            recipe.calibration.batch_norm_images,
            recipe.calibration.seed,
        )

    def evaluator(
        self,
        model: ElasticModel,
        split: "SplitName",
        *,
        shared: bool = False,
        kept: StatisticsFolder | None = None,
    ) -> Evaluator | RecalibratingEvaluator:
        """Scores paths of a model on ``validation`` or ``test``, each with its own batch-norm
        statistics where the recipe or the family asks for it.

        Args:
            model: elastic.
            split: which images.
            shared: whether shared retraining left the weights, with statistics of all its paths
                mixed.
            kept: where the paths' statistics are kept, and taken from.
        """
        evaluator = Evaluator(
            model,
            self.data.loader(split),
            self.task,
            device=self.device,
            precision=self.precision,
        )
        images = self.statistics_images(model, shared=shared)
        if not images:
            return evaluator
        return RecalibratingEvaluator(
            evaluator,
            self._calibration_batches(images),
            trained_on=None if shared else self.space.full,
            kept=kept,
        )

    def statistics_images(self, model: ElasticModel, *, shared: bool = False) -> int:
        """On how many images the batch-norm statistics of each path are measured before it is
        scored; 0 where paths are scored with the model's own.
        """
        images = self.batch_norm_images
        if images is None:
            images = BATCH_NORM_IMAGES if shared or self.space.batch_norm_per_path else 0
        return images if batch_norms(model) else 0

    def score(self, module: nn.Module, split: "SplitName") -> Score:
        """The score of a plain model on one split."""
        return score_model(module, self.data.loader(split), self.task, device=self.device)

    def _calibration_batches(self, images: int) -> Sequence[Batch]:
        if images not in self._drawn:
            loader = self.data.loader("calibration", shuffle_seed=self.seed)
            self._drawn[images] = list(draw(loader, images))
        return self._drawn[images]
