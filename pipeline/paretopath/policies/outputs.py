"""What all exits of a path say of each image, from one pass: what policies are searched on."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from paretopath.elastic import ElasticModel
from paretopath.elastic.exits import outputs_of_exits, steps_with_exits
from paretopath.elastic.own import PathTensors
from paretopath.paths import Value
from paretopath.tasks.task import ImagewiseScorer, Task, require_imagewise


@dataclass(frozen=True)
class ExitOutputs:
    """The outputs of the exits of one path on labelled images.

    Attributes:
        exits: their names, in the order in which the path passes them; the last is its own.
        logits: (exits, images, classes, …) float32, on the CPU.
        targets: (images, …).
        right: (exits, images) whether each answers rightly.
    """

    exits: tuple[str, ...]
    logits: Tensor
    targets: Tensor
    right: npt.NDArray[np.bool_]

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, images: npt.NDArray[np.int64]) -> "ExitOutputs":
        """The same of some images."""
        chosen = torch.from_numpy(images)
        return ExitOutputs(
            self.exits, self.logits[:, chosen], self.targets[chosen], self.right[:, images]
        )


@torch.inference_mode()
def gather_outputs(
    model: ElasticModel,
    path: Mapping[str, Value],
    batches: Iterable[tuple[Any, Any]],
    task: Task,
    *,
    own: PathTensors | None = None,
) -> ExitOutputs:
    """Runs a path once over labelled images, through all exits on its way.

    Args:
        model: in evaluation mode.
        path: ends at an exit.
        batches: (images, targets).
        task: whose scorer says of each image whether it is right.
        own: what the path has for itself; what the model knows of if None.

    Raises:
        InvalidValueError: the path ends at no exit, the task does not judge image by image, or
            logits are not finite.
    """
    require_imagewise(task)
    steps = steps_with_exits(model, path, own=own)
    exits = tuple(step.unit.name for step in steps if step.unit.is_exit)
    scorers = [task.scorer() for _ in exits]
    device = next(model.parameters()).device
    logits: list[list[Tensor]] = [[] for _ in exits]
    answers: list[Tensor] = []
    for images, targets in batches:
        said = outputs_of_exits(steps, images.to(device))
        for scorer, kept, out in zip(scorers, logits, said, strict=True):
            scorer.update(out, targets)
            kept.append(out.float().cpu())
        answers.append(targets)
    for scorer in scorers:
        scorer.compute()  # refuses what is not finite
    right = [scorer.right for scorer in scorers if isinstance(scorer, ImagewiseScorer)]
    return ExitOutputs(
        exits,
        torch.stack([torch.cat(parts) for parts in logits]),
        torch.cat(answers),
        np.stack(right),
    )
