"""Runs a training: over one process or many, from its last checkpoint, until its end or a signal.

Lightning does the steps. What is added here: checkpoints in the middle of an epoch from which the
training goes on with the very next batch, the same random numbers and the same mean loss, so that
an interrupted training ends with the weights of one that was not.
"""

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from paretopath.errors import CheckpointError
from paretopath.recipe import TrainSettings
from paretopath.training.epoch import Epoch, EpochListener
from paretopath.training.interruption import Cause, Interrupted, Signals
from paretopath.training.training_state import TrainingPoint, last_checkpoint, save_checkpoint

_log = logging.getLogger(__name__)
_RESUME = "paretopath"  # the key of a checkpoint that holds what is added to Lightning's
_CAUSES: tuple[Cause | None, ...] = (None, "preemption", "time limit")


@dataclass(frozen=True)
class Processes:
    """The processes that train together, as seen by one of them.

    Attributes:
        rank, local_rank: which one this is, of all and on its node, from 0.
        nodes, per_node: how many there are.
        strategy: ``fsdp`` shards weights over GPUs; ``auto`` is ``ddp`` where there are several.
        on_slurm: whether SLURM started them.
    """

    rank: int = 0
    local_rank: int = 0
    nodes: int = 1
    per_node: int = 1
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    on_slurm: bool = False

    @property
    def world_size(self) -> int:
        """How many processes there are."""
        return self.nodes * self.per_node

    @property
    def share(self) -> tuple[int, int]:
        """What ``DataSplits.loader`` takes."""
        return self.rank, self.world_size


ALONE = Processes()


class EpochReport(pl.Callback):
    """Tells a listener at the end of each epoch, from the first process only.

    Args:
        listener: takes the epoch.
        validate: gives validation accuracy by path id; called every ``every`` epochs and at the
            last.
        every: epochs.
    """

    def __init__(
        self,
        listener: EpochListener,
        *,
        validate: Callable[[], Mapping[str, float]] | None = None,
        every: int = 10,
    ) -> None:
        self.listener = listener
        self.validate = validate
        self.every = every

    def on_train_epoch_end(self, trainer: Any, module: pl.LightningModule) -> None:
        number, of = trainer.current_epoch + 1, int(trainer.max_epochs or 0)
        loss = next(c for c in trainer.callbacks if isinstance(c, _EpochLoss)).mean(trainer)
        due = self.validate is not None and (number % self.every == 0 or number == of)
        metrics: Mapping[str, float] = {}
        with _gathered(trainer) if due else nullcontext():
            if due and self.validate and trainer.is_global_zero:
                metrics = self.validate()
            if trainer.world_size > 1:
                trainer.strategy.barrier("validated")
        if trainer.is_global_zero:
            self.listener(Epoch(number, of, loss, metrics))


class _EpochLoss(pl.Callback):
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


class _Saver(pl.callbacks.Checkpoint):
    """Saves where a training is: after epochs, and before it stops at a signal.

    Lightning runs a ``Checkpoint`` after the other callbacks, so what an epoch has to tell was told
    before it counts as done.
    """

    def __init__(
        self, folder: Path, settings: TrainSettings, loss: _EpochLoss, signals: Signals | None
    ) -> None:
        self.folder = folder
        self.every = settings.checkpoint_every
        self.loss = loss
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
            self._stop_if_told(trainer, self.signals)

    def on_train_epoch_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        number = trainer.current_epoch + 1
        if number % self.every == 0 or number == trainer.max_epochs:
            self._save(trainer)
        if self.signals is not None and number != trainer.max_epochs:
            self._stop_if_told(trainer, self.signals)

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
        checkpoint[_RESUME] = everyone

    def on_load_checkpoint(
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        everyone = checkpoint.get(_RESUME, [])
        if len(everyone) == trainer.world_size:
            self._mine = everyone[trainer.global_rank]

    def _stop_if_told(self, trainer: pl.Trainer, signals: Signals) -> None:
        """Stops all processes at the same step, if one of them got a signal."""
        number = _CAUSES.index(signals.cause)
        if trainer.world_size > 1:  # signals reach processes at different steps
            shared = torch.tensor([number], device=trainer.strategy.root_device)
            dist.all_reduce(shared, op=dist.ReduceOp.MAX)
            number = int(shared)
        cause = _CAUSES[number]
        if cause is not None:
            self._save(trainer)
            raise Interrupted(cause)

    def _save(self, trainer: pl.Trainer) -> None:
        # the optimiser's state too; _WholeFiles names the file
        trainer.save_checkpoint(self.folder / "unused", weights_only=False)


class _WholeFiles(pl.plugins.TorchCheckpointIO):
    """Writes Lightning's checkpoints as :mod:`paretopath.training.training_state` does."""

    def __init__(self, folder: Path, batches: int) -> None:
        super().__init__()
        self.folder = folder
        self.batches = batches

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        progress = checkpoint["loops"]["fit_loop"]
        epoch = int(progress["epoch_progress"]["current"]["processed"])
        step = int(checkpoint["global_step"])
        point = TrainingPoint(epoch, step - epoch * self.batches, step)
        save_checkpoint(self.folder, checkpoint, point)


def fit(
    module: Any,
    loader: Any,
    *,
    checkpoint_dir: Path,
    report: EpochReport | None = None,
    processes: Processes = ALONE,
    device: torch.device | None = None,
    signals: Signals | None = None,
) -> None:
    """Trains a module for its settings' epochs; goes on from the last checkpoint where there is
    one.

    Args:
        module: a LightningModule with ``settings`` of type :class:`TrainSettings`; changed in
            place.
        loader: from ``DataSplits.loader`` with a ``shuffle_seed``, and this process's share.
        checkpoint_dir: of this training alone; see :mod:`paretopath.training.training_state`.
        report: hears of each epoch.
        processes: that train together; each calls this function.
        device: where it runs; the first GPU if there is one, else the CPU.
        signals: at which it stops; None for a training that people watch.

    Raises:
        Interrupted: it was told to stop; a checkpoint holds where it is.
    """
    settings: TrainSettings = module.settings
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pl.seed_everything(settings.seed + processes.rank, workers=True, verbose=False)
    loss = _EpochLoss()
    sharded = processes.strategy == "fsdp"
    trainer = pl.Trainer(
        max_epochs=settings.epochs,
        precision=settings.precision,
        gradient_clip_val=None if sharded else settings.gradient_clip,
        callbacks=[
            loss,
            _Saver(checkpoint_dir, settings, loss, signals),
            *([report] if report else []),
            *([_ClipSharded(settings.gradient_clip)] if sharded else []),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the loader has this process's share already
        num_nodes=processes.nodes,
        plugins=[
            _environment(processes),
            _WholeFiles(checkpoint_dir, len(loader)),
        ],
        **_devices(processes, device),
    )
    last = last_checkpoint(checkpoint_dir)
    if last is not None:
        loader.batch_sampler.start_at(last.point.epoch, last.point.batch)
        _log.info(
            "going on from %s, after %d epochs and %d of %d batches",
            *(last.file.name, last.point.epoch, last.point.batch, len(loader)),
        )
    module.train()
    with signals.kept() if signals else nullcontext():
        try:
            start = str(last.file) if last else None
            trainer.fit(module, loader, ckpt_path=start, weights_only=True)
        except SystemExit as error:  # Lightning's answer to a Ctrl-C
            raise KeyboardInterrupt from error
    module.eval()


def trained_state(checkpoint_dir: Path, prefix: str) -> dict[str, Tensor]:
    """The weights of a training's last checkpoint: whole, where the processes hold shards.

    Args:
        checkpoint_dir: of a training that has ended.
        prefix: of the wanted names, such as ``model.``; it is cut off.

    Raises:
        CheckpointError: there is no checkpoint that can be trusted.
    """
    last = last_checkpoint(checkpoint_dir)
    if last is None:
        raise CheckpointError(f"{checkpoint_dir} holds no checkpoint that can be trusted")
    state = torch.load(last.file, map_location="cpu", weights_only=True)["state_dict"]
    return {name.removeprefix(prefix): t for name, t in state.items() if name.startswith(prefix)}


class _ClipSharded(pl.Callback):
    """Limits the norm of gradients that are spread over processes, which Lightning refuses to."""

    def __init__(self, largest: float | None) -> None:
        self.largest = largest

    def on_before_optimizer_step(self, trainer: pl.Trainer, module: Any, optimizer: Any) -> None:
        if self.largest is not None:
            trainer.strategy.model.clip_grad_norm_(self.largest)  # type: ignore[union-attr, operator]


def _environment(processes: Processes) -> Any:
    """Lightning's view of who started the processes; SLURM's variables are also there in a shell
    that a user got from SLURM, where they mean nothing.
    """
    from lightning_fabric.plugins import environments

    if processes.on_slurm:
        # requeueing is the job's own affair: Lightning's handlers would write their own checkpoints
        return environments.slurm.SLURMEnvironment(auto_requeue=False)
    return environments.lightning.LightningEnvironment()


def _devices(processes: Processes, device: torch.device) -> dict[str, Any]:
    """Lightning's arguments that say where to run."""
    on_gpu = device.type == "cuda"
    where: dict[str, Any] = {"accelerator": "gpu" if on_gpu else "cpu"}
    if processes.strategy == "fsdp":
        strategy: Any = pl.strategies.FSDPStrategy(state_dict_type="full")
    elif processes.world_size > 1:
        # which paths run, and with them which weights, changes from step to step
        strategy = pl.strategies.DDPStrategy(
            process_group_backend="nccl" if on_gpu else "gloo", find_unused_parameters=True
        )
    else:
        alone = [device.index or 0] if on_gpu and not processes.on_slurm else 1
        return {**where, "devices": alone, "strategy": "auto"}
    return {**where, "devices": processes.per_node, "strategy": strategy}


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
