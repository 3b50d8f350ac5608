"""Training as Lightning modules: several paths in one set of weights, or one path alone.

Both learn from the full path. Shared training is the sandwich rule with in-place distillation (Yu &
Huang, "Universally Slimmable Networks", ICCV 2019, sections 3.2 and 3.3): each step runs the full
path, the smallest and some others, and the full path's output teaches the rest. The steps' common
prefixes run once, as in evaluation.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from paretopath.elastic import ElasticModel
from paretopath.elastic.exits import exits_on_the_way
from paretopath.elastic.prefixes import PrefixTree
from paretopath.paths import ExecutionPath, Value
from paretopath.recipe import TrainSettings
from paretopath.tasks.task import Task

Batch = tuple[Tensor, Any]


class Training(pl.LightningModule):
    """AdamW with linear warm-up and cosine decay, per step."""

    def __init__(self, settings: TrainSettings, task: Task) -> None:
        super().__init__()
        self.settings = settings
        self.task = task

        self._decayed: set[str] = set()

    def setup(self, stage: str) -> None:
        # weights that decay are recognised by having two axes or more; a strategy (FSDP) may
        # flatten them afterwards, so this is done before
        self._decayed = {name for name, p in self.named_parameters() if p.ndim > 1}

    def configure_optimizers(self) -> Any:
        trained = [(name, p) for name, p in self.named_parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [
            {"params": [p for name, p in trained if name in self._decayed]},
            {
                "params": [p for name, p in trained if name not in self._decayed],
                "weight_decay": 0.0,
            },
        ]
        optimizer = torch.optim.AdamW(
            groups, lr=self.settings.lr, weight_decay=self.settings.weight_decay
        )
        steps = int(self.trainer.estimated_stepping_batches)
        warmup = max(1, round(steps * self.settings.warmup_epochs / self.settings.epochs))

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            progress = (step - warmup) / max(1, steps - warmup)
            return 0.5 * (1 + float(torch.cos(torch.tensor(progress * torch.pi))))

        scheduler = LambdaLR(optimizer, factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }


class SharedTraining(Training):
    """Trains paths together in one elastic model.

    Every step runs the full path and the smallest of ``paths``, and ``settings.paths_per_step`` of
    the others drawn at random.

    Args:
        model: changed in place.
        paths: canonical paths to train; the full path is always among those that run.
        settings: of the recipe.
        task: gives the losses.
        costs: one number for each path; the least is the sandwich's lower half. Their order if
            None.
        distil: whether the full path teaches the others; if not, all learn from the labels alone.
        passed_weight: of the loss behind each exit that a path passes, to 1 of the path's own. With
            it these exits learn in every step in which a path runs that passes them.
    """

    def __init__(
        self,
        model: ElasticModel,
        paths: Sequence[ExecutionPath],
        settings: TrainSettings,
        task: Task,
        *,
        costs: Sequence[float] | None = None,
        distil: bool = True,
        passed_weight: float = 0.0,
    ) -> None:
        super().__init__(settings, task)
        self.model = model
        self.distil = distil
        self.passed_weight = passed_weight
        self.full = model.space.full
        order = (
            range(len(paths)) if costs is None else sorted(range(len(paths)), key=costs.__getitem__)
        )
        self.others = [paths[i] for i in order if paths[i] != self.full]
        self._passed = {
            path: [found.path for found in exits_on_the_way(model, path) if found.path != path]
            for path in (self.full, *self.others)
            if passed_weight
        }
        # what calibration measured does not change: DDP need not send it at every step
        self._ddp_params_and_buffers_to_ignore = [
            name for name, _ in self.named_buffers() if ".compensation." in name
        ]

    def _draw(self) -> list[ExecutionPath]:
        """The paths of one step: the full one first."""
        others = self.others
        middle = others[1:]
        count = min(self.settings.paths_per_step, len(middle))
        # drawn from (seed, step), so that a resumed job and every rank of a parallel one draw alike
        generator = torch.Generator().manual_seed(self.settings.seed * 1_000_003 + self.global_step)
        drawn = torch.randperm(len(middle), generator=generator)[:count].tolist()
        return [self.full, *others[:1], *(middle[i] for i in drawn)]

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = batch
        paths = dict.fromkeys(self._draw(), 1.0)
        for passed in [way for path in paths for way in self._passed.get(path, ())]:
            paths.setdefault(passed, self.passed_weight)
        outputs = dict(PrefixTree(self.model, list(paths)).run(images))
        loss = self.task.loss(outputs[0], targets)
        teacher = detached(outputs[0])
        for index, weight in enumerate(paths.values()):
            if index and self.distil:
                loss = loss + weight * self.task.distillation_loss(outputs[index], teacher, targets)
            elif index:
                loss = loss + weight * self.task.loss(outputs[index], targets)
        return loss / sum(paths.values())


class SeparateTraining(Training):
    """Trains the plain model of one path, taught by the full path.

    Args:
        student: from ``ElasticModel.extract``, changed in place.
        teacher: the elastic model; its full path runs, frozen. None to learn from the labels alone.
        settings: of the recipe.
        task: gives the losses.
        passed: heads by how many of the student's units run before each, from
            :func:`passed_exits`; they are trained along. A student that has some is a chain of
            units (``nn.Sequential``).
        passed_weight: of the loss behind each of them, to 1 of the student's own.
    """

    def __init__(
        self,
        student: nn.Module,
        teacher: ElasticModel | None,
        settings: TrainSettings,
        task: Task,
        *,
        passed: Mapping[int, nn.Module] | None = None,
        passed_weight: float = 0.0,
    ) -> None:
        super().__init__(settings, task)
        self.student = student
        self.passed_weight = passed_weight
        self.passed = nn.ModuleDict({str(after): head for after, head in (passed or {}).items()})
        # kept out of the module tree: not trained, not in the checkpoint
        self._teacher = [teacher] if teacher is not None else []

    def on_fit_start(self) -> None:
        for teacher in self._teacher:
            teacher.to(self.device).eval()

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = batch
        taught = None
        if self._teacher:
            with torch.no_grad(), self._teacher[0].active({}):
                taught = self._teacher[0](images)
        *passed, output = self._outputs(images)
        lost = self._lost(output, taught, targets)
        for other in passed:
            lost = lost + self.passed_weight * self._lost(other, taught, targets)
        return lost / (1 + self.passed_weight * len(passed))

    def _outputs(self, images: Any) -> list[Any]:
        """Those of the exits that are passed, and the last one."""
        if not self.passed:
            return [self.student(images)]  # it may be another library's model, no chain of units
        found, state = [], images
        for after, unit in enumerate(self.student.children()):
            if str(after) in self.passed:
                found.append(self.passed[str(after)](state))
            state = unit(state)
        return [*found, state]

    def _lost(self, output: Any, taught: Any, targets: Any) -> Tensor:
        if taught is None:
            return self.task.loss(output, targets)
        return self.task.distillation_loss(output, taught, targets)


def passed_exits(model: ElasticModel, path: Mapping[str, Value]) -> dict[int, nn.Module]:
    """Plain heads of the exits that a path passes before its end, by the steps before each."""
    end = len(model.steps(path)) - 1
    passed = (found for found in exits_on_the_way(model, path) if found.after < end)
    return {found.after: found.step.extract() for found in passed}


def detached(output: Any) -> Any:
    """An output, as a teacher gives it: nothing learns through it."""
    return torch.utils._pytree.tree_map(lambda tensor: tensor.detach(), output)
