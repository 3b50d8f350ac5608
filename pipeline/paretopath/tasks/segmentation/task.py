"""One class a pixel: cross-entropy with an ignored class, distillation of logits, mean IoU."""

from dataclasses import dataclass, field

import torch.nn.functional as F
from torch import Tensor

from paretopath.tasks.losses import require_loss_settings
from paretopath.tasks.segmentation.mean_iou import MeanIoU, resized
from paretopath.tasks.segmentation.windows import SlidingWindow


@dataclass(frozen=True)
class Segmentation:
    """Cross-entropy and mean IoU over logits (B, classes, y, x) and masks (B, Y, X), int64.

    Logits are resized to the mask's size, bilinearly, as SegFormer and UperNet do it.

    Attributes:
        ignore_index: pixels of this class count nowhere.
        label_smoothing: share of the truth spread over all classes, in [0, 1).
        distillation_weight: share of the teacher's term in :meth:`distillation_loss`, in [0, 1].
        distillation_temperature: divides both models' logits before their softmax, over 0.
        window: how images larger than the model's input are scored; whole images if None. Outputs
            then are those of the windows that :meth:`SlidingWindow.cut` makes.
    """

    ignore_index: int = 255
    label_smoothing: float = 0.0
    distillation_weight: float = 0.5
    distillation_temperature: float = 2.0
    window: SlidingWindow | None = None
    name: str = field(default="segmentation", init=False)
    metric: str = field(default="mIoU", init=False)

    def __post_init__(self) -> None:
        require_loss_settings(
            self.label_smoothing, self.distillation_weight, self.distillation_temperature
        )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy over the pixels that are not ignored; 0 if all are."""
        logits = resized(output.float(), target)
        losses = F.cross_entropy(
            logits,
            target,
            ignore_index=self.ignore_index,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
        return losses / (target != self.ignore_index).sum().clamp(min=1)

    def distillation_loss(self, output: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """``(1 - w) CE(student, target) + w T² KL(teacher/T || student/T)``, means over pixels.

        Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2,
        pixel by pixel at the logits' own resolution. The teacher speaks on ignored pixels too.
        """
        weight, temperature = self.distillation_weight, self.distillation_temperature
        divergence = F.kl_div(
            F.log_softmax(output.float() / temperature, dim=1),
            F.log_softmax(teacher.detach().float() / temperature, dim=1),
            reduction="none",
            log_target=True,
        )
        soft = divergence.sum(1).mean()
        if weight == 1:
            return soft * temperature**2
        return (1 - weight) * self.loss(output, target) + weight * temperature**2 * soft

    def confidence(self, output: Tensor) -> Tensor:
        """(B,) the highest class probability, a mean over the pixels."""
        return output.softmax(1).amax(1).mean((-2, -1)).nan_to_num(0.0)

    def scorer(self) -> "MeanIoU":
        """A new, empty counter of pixels."""
        return MeanIoU(ignore_index=self.ignore_index, window=self.window)
