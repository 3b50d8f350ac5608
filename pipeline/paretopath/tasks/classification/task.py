"""One label an image: cross-entropy, distillation of logits, top-1."""

import math
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from paretopath.errors import InvalidValueError
from paretopath.tasks.losses import require_loss_settings
from paretopath.tasks.task import Score


@dataclass(frozen=True)
class Classification:
    """Cross-entropy and top-1 over logits (B, classes) and labels (B,), int64 from 0.

    Attributes:
        label_smoothing: share of the truth spread over all classes, in [0, 1) (Szegedy et al.,
            arXiv 1512.00567, section 7).
        distillation_weight: share of the teacher's term in :meth:`distillation_loss`, in [0, 1].
        distillation_temperature: divides both models' logits before their softmax, over 0.
    """

    label_smoothing: float = 0.0
    distillation_weight: float = 0.5
    distillation_temperature: float = 2.0
    name: str = field(default="classification", init=False)
    metric: str = field(default="top-1", init=False)

    def __post_init__(self) -> None:
        require_loss_settings(
            self.label_smoothing, self.distillation_weight, self.distillation_temperature
        )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Mean cross-entropy of a batch."""
        return F.cross_entropy(output.float(), target, label_smoothing=self.label_smoothing)

    def distillation_loss(self, output: Tensor, teacher: Tensor, target: Tensor) -> Tensor:
        """``(1 - w) CE(student, target) + w T² KL(teacher/T || student/T)``, means over the batch.

        Hinton et al., "Distilling the Knowledge in a Neural Network" (arXiv 1503.02531), section 2:
        the factor T² keeps the two gradients' sizes in proportion when T changes.
        """
        weight, temperature = self.distillation_weight, self.distillation_temperature
        soft = F.kl_div(
            F.log_softmax(output.float() / temperature, dim=-1),
            F.log_softmax(teacher.detach().float() / temperature, dim=-1),
            reduction="batchmean",
            log_target=True,
        )
        if weight == 1:
            return soft * temperature**2
        return (1 - weight) * self.loss(output, target) + weight * temperature**2 * soft

    def confidence(self, output: Tensor) -> Tensor:
        """(B,) the highest class probability."""
        return highest_probability(output)

    def scorer(self) -> "Top1":
        """A new, empty counter of right answers."""
        return Top1()


class Top1:
    """Notes whether each image's largest logit is the right one; waits for the device when asked
    what it came to.
    """

    def __init__(self) -> None:
        self._right: list[Tensor] = []
        self._confidence: list[Tensor] = []
        self._finite: Tensor | None = None

    def update(self, output: Tensor, target: Tensor) -> None:
        """Takes logits (B, classes) and labels (B,)."""
        self._confidence.append(highest_probability(output))
        self._right.append(output.argmax(dim=-1) == target.to(output.device))
        finite = torch.isfinite(output).all()
        self._finite = finite if self._finite is None else self._finite & finite

    @property
    def right(self) -> npt.NDArray[np.bool_]:
        """(images,) which answers are right, in the order in which they came."""
        if not self._right or not sum(map(len, self._right)):
            raise InvalidValueError("top-1 needs at least one image, but got none")
        answers: npt.NDArray[np.bool_] = torch.cat(self._right).cpu().numpy()
        return answers

    @property
    def confidence(self) -> npt.NDArray[np.floating]:
        """(images,) the highest class probabilities, in the order in which they came."""
        sure: npt.NDArray[np.floating] = torch.cat(self._confidence).float().cpu().numpy()
        return sure

    def resampled(self, draws: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """See :class:`~paretopath.tasks.task.ResamplingScorer`."""
        shares: npt.NDArray[np.float64] = draws @ self.right / draws.sum(axis=1)
        return shares

    def compute(self) -> Score:
        """The share of right answers, and its standard error; see :func:`proportion_error`.

        Raises:
            InvalidValueError: no images came, or a logit was not finite.
        """
        answers = self.right
        if self._finite is None or not bool(self._finite):
            raise InvalidValueError(
                "the model's logits must be finite, but some are infinite or not a number"
            )
        right, samples = int(answers.sum()), len(answers)
        return Score(right / samples, proportion_error(right, samples), samples)


def highest_probability(logits: Tensor) -> Tensor:
    """(B,) of logits (B, classes); 0 where one is not a number."""
    return logits.softmax(-1).amax(-1).nan_to_num(0.0)


def proportion_error(right: int, samples: int) -> float:
    """The standard error of a share of ``samples``, by Agresti and Coull's rule.

    Two right and two wrong answers are added first: ``p = (right + 2) / (n + 4)``; the error is
    ``sqrt(p (1 - p) / (n + 4))``. It agrees with ``sqrt(p (1 - p) / n)`` where that works, and
    stays honest where that says 0, when every image is right. (Agresti and Coull, "Approximate is
    better than 'exact' for interval estimation of binomial proportions", The American Statistician
    52(2), 1998.)
    """
    n = samples + 4
    p = (right + 2) / n
    return math.sqrt(p * (1 - p) / n)
