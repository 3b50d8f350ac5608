"""What happens between the steps of a training: its loss, its reports, its checkpoints, its end.

They run in the order in which :func:`~paretopath.training.trainer.fit` lists them; Lightning runs a
``Checkpoint``, such as :class:`Saver`, after all others, so what an epoch has to tell was told
before it counts as done.
"""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from paretopath.errors import TrainingError
from paretopath.recipe import RetrainSettings, TrainSettings
from paretopath.training.epoch import Epoch, EpochReport
from paretopath.training.interruption import Cause, Interrupted, Signals
from paretopath.training.training_state import checkpoint_file, last_checkpoint

RESUME = "paretopath"
"""The key of a checkpoint that holds what is added to Lightning's."""

_CAUSES: tuple[Cause | None, ...] = (None, "preemption", "time limit")


class EpochLoss(pl.Callback):
    """The mean loss of an epoch's images; survives a checkpoint in its middle."""

    def __init__(self) -> None:
        self.total: Tensor | float = 0.0
        self.images = 0

    def on_train_epoch_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.total, self.images = 0.0, 0

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        count = len(batch[0])
        self.total = self.total + outputs["loss"].detach().double() * count
        self.images += count

    def mean(self, trainer: pl.Trainer) -> float:
        """Over all processes, which must all call it."""
        sums = torch.tensor([float(self.total), self.images], dtype=torch.float64)
        if trainer.world_size > 1:
            sums = sums.to(trainer.strategy.root_device)
            dist.all_reduce(sums)
        total, images = sums.tolist()
        return total / images if images else float("nan")


class Divergence(pl.Callback):
    """Ends a training whose loss or weights are no longer finite, before they are saved.

    Args:
        settings: of the training, for what to change.
        folder: of its checkpoints, for what is left.
    """

    def __init__(self, settings: TrainSettings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self._unchecked: tuple[Tensor, int, int] | None = (
            None  # of the last step: loss, step, epoch
        )

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # the step before, which a GPU is done with: waiting for this one would halt it at each step
        self._check_loss(trainer)
        self._unchecked = outputs["loss"].detach(), trainer.global_step, trainer.current_epoch + 1

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self.require_finite(trainer, module)

    def require_finite(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """TrainingError where the last step's loss, or a weight, is not finite."""
        self._check_loss(trainer)
        if not _agreed(trainer, _all_finite([*module.parameters(), *module.buffers()])):
            self._stop("weights are", trainer.global_step, trainer.current_epoch + 1)

    def _check_loss(self, trainer: pl.Trainer) -> None:
        if self._unchecked is not None:
            (loss, step, epoch), self._unchecked = self._unchecked, None
            if not _agreed(trainer, _all_finite([loss])):
                self._stop("the loss is", step, epoch)

    def _stop(self, what: str, step: int, epoch: int) -> None:
        settings = self.settings
        section = "retrain" if isinstance(settings, RetrainSettings) else "train"
        last = last_checkpoint(self.folder)
        kept = f"; the checkpoint after {last.point.step} steps is kept" if last else ""
        raise TrainingError(
            f"training diverged: {what} not finite at step {step} (epoch {epoch} of "
            f"{settings.epochs}); {section}.lr must be lower, but is {settings.lr:g}{kept}"
        )


class Reporter(pl.Callback):
    """Tells a listener at the end of each epoch, from the first process only."""

    def __init__(self, report: EpochReport, loss: EpochLoss, every: int) -> None:
        self.report = report
        self.loss = loss
        self.every = every

    def on_train_epoch_end(self, trainer: Any, module: pl.LightningModule) -> None:
        number, of = trainer.current_epoch + 1, int(trainer.max_epochs or 0)
        loss, validate = self.loss.mean(trainer), self.report.validate
        due = validate is not None and (number % self.every == 0 or number == of)
        metrics: Mapping[str, float] = {}
        with _gathered(trainer) if due else nullcontext():
            if due and validate and trainer.is_global_zero:
                metrics = validate()
            if trainer.world_size > 1:
                trainer.strategy.barrier("validated")
        if trainer.is_global_zero:
            self.report.listener(Epoch(number, of, loss, metrics))


class Saver(pl.callbacks.Checkpoint):
    """Saves where a training is: after epochs, and before it stops at a signal."""

    def __init__(
        self,
        folder: Path,
        settings: TrainSettings,
        loss: EpochLoss,
        divergence: Divergence,
        signals: Signals | None,
    ) -> None:
        self.folder = folder
        self.every = settings.checkpoint_every
        self.loss = loss
        self.divergence = divergence
        self.signals = signals
        self._mine: Mapping[str, Any] | None = None  # what a checkpoint holds about this process

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        if self.signals is not None:
            self.signals.install()  # after Lightning, whose own handlers talk to other processes
        if self._mine is not None:
            _set_random_state(self._mine["random"])
            self.loss.total, self.loss.images = self._mine["loss"], self._mine["images"]
            self._mine = None

    def on_train_batch_end(
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        # the last batch of an epoch leaves it to the epoch's end
        if self.signals is not None and not trainer.is_last_batch:
            self._stop_if_told(trainer, module, self.signals)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        number = trainer.current_epoch + 1
        if number % self.every == 0 or number == trainer.max_epochs:
            self._save(trainer)
        if self.signals is not None and number != trainer.max_epochs:
            self._stop_if_told(trainer, module, self.signals)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        mine = {
            "random": _random_state(),
            "loss": float(self.loss.total),
            "images": self.loss.images,
        }
        everyone: list[Any] = [mine]
        if trainer.world_size > 1:
            everyone = [None] * trainer.world_size
            dist.all_gather_object(everyone, mine)
        checkpoint[RESUME] = everyone

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        everyone = checkpoint.get(RESUME, [])
        if len(everyone) == trainer.world_size:
            self._mine = everyone[trainer.global_rank]

    def _stop_if_told(self, trainer: pl.Trainer, module: Any, signals: Signals) -> None:
        """Stops all processes at the same step, if one of them got a signal."""
        number = _CAUSES.index(signals.cause)
        if trainer.world_size > 1:  # signals reach processes at different steps
            shared = torch.tensor([number], device=trainer.strategy.root_device)
            dist.all_reduce(shared, op=dist.ReduceOp.MAX)
            number = int(shared)
        cause = _CAUSES[number]
        if cause is not None:
            self.divergence.require_finite(trainer, module)
            self._save(trainer)
            raise Interrupted(cause)

    def _save(self, trainer: pl.Trainer) -> None:
        # with the optimiser's state
        file = checkpoint_file(self.folder, trainer.global_step)
        trainer.save_checkpoint(file, weights_only=False)


class ClipSharded(pl.Callback):
    """Limits the norm of gradients that are spread over processes, which Lightning refuses to."""

    def __init__(self, largest: float | None) -> None:
        self.largest = largest

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        if self.largest is not None:
            trainer.strategy.model.clip_grad_norm_(self.largest)  # type: ignore[union-attr, operator]


def _all_finite(tensors: Iterable[Tensor]) -> bool:
    found = [torch.isfinite(t).all() for t in tensors if t.is_floating_point()]
    return not found or bool(torch.stack(found).all())


def _agreed(trainer: pl.Trainer, here: bool) -> bool:
    """Whether it holds in all processes, which must all ask."""
    return bool(trainer.strategy.reduce_boolean_decision(here, all=True))


def _gathered(trainer: Any) -> AbstractContextManager[Any]:
    """Whole weights in every process, where each holds a shard of them."""
    if isinstance(trainer.strategy, pl.strategies.FSDPStrategy):
        from torch.distributed.fsdp import FullyShardedDataParallel

        whole: Any = trainer.strategy.model
        return FullyShardedDataParallel.summon_full_params(whole, writeback=False)
    return nullcontext()


def _random_state() -> dict[str, Tensor]:
    """Of torch's global generators in this process."""
    state = {"cpu": torch.get_rng_state()}
    if torch.cuda.is_available():
        state["cuda"] = torch.cuda.get_rng_state()
    return state


def _set_random_state(state: Mapping[str, Tensor]) -> None:
    torch.set_rng_state(state["cpu"].cpu())
    if "cuda" in state and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())
