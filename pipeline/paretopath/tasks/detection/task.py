"""Detection: the losses of a detector's own heads, distillation of matched places, mAP."""

from dataclasses import dataclass, field

from torch import Tensor

from paretopath.errors import InvalidValueError
from paretopath.tasks.detection.mean_average_precision import MeanAveragePrecision
from paretopath.tasks.detection.objects import NOTHING, Objects, RawDetections
from paretopath.tasks.task import Mark

SHOWN = 0.3
"""Scores from which detections are drawn."""


@dataclass(frozen=True)
class Detection:
    """Losses that an exit's own head computes, and mean average precision.

    Attributes:
        distillation_weight: share of the teacher's term in :meth:`distillation_loss`, in [0, 1].
    """

    distillation_weight: float = 0.5
    name: str = field(default="detection", init=False)
    metric: str = field(default="mAP", init=False)

    def __post_init__(self) -> None:
        if not 0 <= self.distillation_weight <= 1:
            raise InvalidValueError(
                f"distillation_weight must be in [0, 1], but got {self.distillation_weight}"
            )

    def loss(self, output: RawDetections, target: Objects) -> Tensor:
        """The training loss of the head that made the output."""
        return output.loss(target)

    def distillation_loss(
        self, output: RawDetections, teacher: RawDetections, target: Objects
    ) -> Tensor:
        """``(1 - w) loss(student, truth) + w distance(student, teacher)``.

        The distance is the head's own, over the boxes and class logits of matched places, as in
        Chang et al., "DETRDistill" (arXiv 2211.10156), section 3.2.
        """
        weight = self.distillation_weight
        if weight == 1:
            return output.distill(teacher)
        return (1 - weight) * output.loss(target) + weight * output.distill(teacher)

    def confidence(self, output: RawDetections) -> Tensor:
        """(B,) the score of the surest detection of each image."""
        scores = output.predict().scores
        if scores.shape[1] == 0:
            return scores.new_zeros(len(scores))
        return scores.amax(1).nan_to_num(0.0)

    def marks(self, output: RawDetections) -> list[list[Mark]]:
        """Detections from :data:`SHOWN` on, image by image."""
        found = output.predict().to("cpu")
        return [
            [
                {"box": box, "label": label, "score": score}
                for box, label, score in zip(
                    image.boxes[0].tolist(),
                    image.labels[0].tolist(),
                    image.scores[0].tolist(),
                    strict=True,
                )
                if label != NOTHING and score >= SHOWN
            ]
            for image in (found[number : number + 1] for number in range(len(found)))
        ]

    def truth(self, target: Objects) -> list[list[Mark]]:
        """The objects of each image, crowds left out."""
        objects = (target.of_image(number) for number in range(len(target)))
        return [
            [
                {"box": box, "label": label, "score": None}
                for box, label in zip(boxes.tolist(), labels.tolist(), strict=True)
            ]
            for boxes, labels in objects
        ]

    def scorer(self) -> MeanAveragePrecision:
        """A new, empty scorer."""
        return MeanAveragePrecision()
