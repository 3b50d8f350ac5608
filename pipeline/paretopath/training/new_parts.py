"""Training of what is new in a model whose other weights were given: heads, exits.

The rest is frozen, and runs as it does in evaluation. So what reaches the first new unit of a path
is the same in every epoch where the images are: if it fits into memory, it is computed once.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from paretopath.data.splits import Batch, DataSplits
from paretopath.elastic import ElasticModel, State, Step
from paretopath.paths import ExecutionPath
from paretopath.progress import Progress, unheard
from paretopath.recipe import TrainSettings
from paretopath.tasks.task import Task
from paretopath.training.retrain import Training, detached

Steps = tuple[Step, ...]


@dataclass
class Features:
    """In the place of images: what reaches the first new unit of each path.

    Attributes:
        states: of each path, batch first.
    """

    states: tuple[State, ...]

    def __len__(self) -> int:
        """How many images they are of."""
        return len(tree_leaves(self.states)[0])


class NewPartsTraining(Training):
    """Trains some parameters of a model, on several paths together.

    Args:
        model: changed in place, its other parameters frozen.
        paths: canonical; those that run nothing new are left out, but for a teacher.
        new: names of the model's parameters that learn.
        settings: of the recipe.
        task: gives the losses.
        distil: whether the last of the paths teaches the others, beside the labels.
    """

    def __init__(
        self,
        model: ElasticModel,
        paths: Sequence[ExecutionPath],
        new: Collection[str],
        settings: TrainSettings,
        task: Task,
        *,
        distil: bool = False,
    ) -> None:
        super().__init__(settings, task)
        self.model = model
        self.distil = distil
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in new)
        self.split: list[tuple[Steps, Steps]] = []  # of each path: what is frozen, and the rest
        for path in paths:
            steps = model.steps(path)
            first = next((i for i, step in enumerate(steps) if _learns(step.unit)), None)
            if first is not None:
                self.split.append((steps[:first], steps[first:]))
            elif distil and path is paths[-1]:
                self.split.append((steps, ()))

    def train(self, mode: bool = True) -> Self:
        """Frozen layers never train: a batch norm's statistics are part of what was given."""
        super().train(False)
        for module in self.modules():
            if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
                module.training = mode
        return self

    @torch.no_grad()
    def features(self, images: State) -> Features:
        """What reaches the first new unit of each path; what paths share runs once."""
        known: dict[Steps, State] = {(): images}
        for steps in sorted((frozen for frozen, _ in self.split), key=len):
            start = max((k for k in known if steps[: len(k)] == k), key=len)
            state = known[start]
            for step in steps[len(start) :]:
                state = step(state)
            known[steps] = state
        return Features(tuple(known[frozen] for frozen, _ in self.split))

    def training_step(self, batch: tuple[Any, Any], batch_idx: int) -> Tensor:
        images, targets = batch
        self.train()  # whoever validated in between left all in evaluation
        features = images if isinstance(images, Features) else self.features(images)
        outputs = []
        for state, (_, learned) in zip(features.states, self.split, strict=True):
            for step in learned:
                state = step(state)
            outputs.append(state)
        *others, last = outputs
        if not self.distil:
            losses = [self.task.loss(output, targets) for output in outputs]
        else:
            teacher = detached(last)
            losses = [self.task.distillation_loss(o, teacher, targets) for o in others]
            losses += [self.task.loss(last, targets)] if self.split[-1][1] else []
        return torch.stack(losses).mean()


class FeatureSplit:
    """A split for training, with features in the place of its images.

    Args:
        features: of all its images, in order.
        targets: (n, …).
    """

    is_kept = True

    def __init__(self, features: Features, targets: Tensor) -> None:
        self.features = features
        self.targets = targets

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> Batch:
        """One image's features, as a batch of one, and its target."""
        features, targets = self.__getitems__([index])
        return features, targets[0]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """A batch of features, and its targets."""
        chosen = torch.as_tensor(indices)
        states = tree_map(lambda tensor: tensor[chosen], self.features.states)
        return Features(states), self.targets[chosen]


def keep_features(
    module: NewPartsTraining,
    data: DataSplits,
    *,
    device: torch.device,
    limit_bytes: float,
    progress: Progress = unheard,
) -> DataSplits:
    """The data with features in the place of training images, computed once; or the data as it is,
    where training images vary from epoch to epoch, have several sizes, or their features take more
    memory.

    Args:
        module: to be trained on it; it is moved to the device.
        data: with images.
        device: where features are computed; they are kept in main memory.
        limit_bytes: that all features may take.
        progress: told (images done, images in all).
    """
    if not data.repeats:
        return data
    module.to(device).eval()
    kept: tuple[State, ...] | None = None
    targets, done, number = [], 0, len(data.train)
    progress(0, number)
    for images, target in data.loader("train", batch_size=data.eval_batch_size):
        if not isinstance(images, Tensor) or not isinstance(target, Tensor):
            return data
        states, end = module.features(images.to(device)).states, done + len(images)
        if kept is None:
            size = sum(tensor.nbytes for tensor in tree_leaves(states))
            if size / len(images) * number > limit_bytes:
                return data
            kept = tree_map(lambda t: t.new_empty((number, *t.shape[1:]), device="cpu"), states)
        for whole, part in zip(tree_leaves(kept), tree_leaves(states), strict=True):
            whole[done:end] = part
        targets.append(target)
        done = end
        progress(done, number)
    assert kept is not None  # no split is empty
    return replace(data, train=FeatureSplit(Features(kept), torch.cat(targets)))


def _learns(unit: nn.Module) -> bool:
    return any(parameter.requires_grad for parameter in unit.parameters())
