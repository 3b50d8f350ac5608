"""Runs a training: over one process or many, from its last checkpoint, until its end or a signal.

Lightning does the steps. What is added here: checkpoints in the middle of an epoch from which the
training goes on with the very next batch, the same random numbers and the same mean loss, so that
an interrupted training ends with the weights of one that was not.
"""

import logging
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor

from paretopath.errors import CheckpointError, TrainingError
from paretopath.recipe import TrainSettings
from paretopath.training.callbacks import ClipSharded, Divergence, EpochLoss, Reporter, Saver
from paretopath.training.epoch import EpochReport
from paretopath.training.interruption import Signals
from paretopath.training.training_state import TrainingPoint, last_checkpoint, save_checkpoint

__all__ = ["ALONE", "EpochReport", "Processes", "fit", "trained_state"]

_log = logging.getLogger(__name__)


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


class _WholeFiles(pl.plugins.TorchCheckpointIO):
    """Writes Lightning's checkpoints as :mod:`paretopath.training.training_state` does."""

    def __init__(self, batches: int) -> None:
        super().__init__()
        self.batches = batches

    def save_checkpoint(self, checkpoint: Any, path: Any, storage_options: Any = None) -> None:
        progress = checkpoint["loops"]["fit_loop"]
        epoch = int(progress["epoch_progress"]["current"]["processed"])
        step = int(checkpoint["global_step"])
        point = TrainingPoint(epoch, step - epoch * self.batches, step)
        save_checkpoint(Path(path), checkpoint, point)


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
        TrainingError: it diverged; no checkpoint holds what is not finite.
    """
    settings: TrainSettings = module.settings
    if device is None:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    pl.seed_everything(settings.seed + processes.rank, workers=True, verbose=False)
    loss, divergence = EpochLoss(), Divergence(settings, checkpoint_dir)
    sharded = processes.strategy == "fsdp"
    trainer = pl.Trainer(
        max_epochs=settings.epochs,
        precision=settings.precision,
        gradient_clip_val=None if sharded else settings.gradient_clip,
        callbacks=[
            loss,
            divergence,
            Saver(checkpoint_dir, settings, loss, divergence, signals),
            *([Reporter(report, loss, settings.validate_every)] if report else []),
            *([ClipSharded(settings.gradient_clip)] if sharded else []),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,  # the loader has this process's share already
        num_nodes=processes.nodes,
        plugins=[
            _environment(processes),
            _WholeFiles(len(loader)),
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
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):
                raise
            raise TrainingError(
                "batch norms need two images at a time, but data.batch_size gives a process one"
            ) from error
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
