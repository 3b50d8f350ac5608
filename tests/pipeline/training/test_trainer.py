"""A training that is interrupted at any moment ends as one that was not."""

import json
import logging
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from paretopath.data.order import EpochBatches, EpochShuffle
from paretopath.errors import CheckpointError, InvalidValueError, TrainingError
from paretopath.recipe import TrainSettings
from paretopath.training.epoch import Epoch
from paretopath.training.interruption import Interrupted, Signals
from paretopath.training.trainer import EpochReport, fit, trained_state
from paretopath.training.training_state import check, last_checkpoint

SETTINGS = TrainSettings(epochs=3, warmup_epochs=1.0, lr=0.01)
BATCHES = 7


class Regression(pl.LightningModule):
    """A small network whose every step draws random numbers, and which can be told to stop."""

    def __init__(
        self,
        *,
        stop_at: int | None = None,
        number: int = signal.SIGTERM,
        broken_at: int | None = None,
    ) -> None:
        super().__init__()
        self.broken_at = broken_at
        self.settings = SETTINGS
        torch.manual_seed(0)
        self.model = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 1)
        )
        self.stop_at = stop_at
        self.number = number
        self.seen: list[list[float]] = []

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        self.seen.append(y.flatten().tolist())
        if self.stop_at is not None and len(self.seen) == self.stop_at:
            os.kill(os.getpid(), self.number)
        loss = nn.functional.mse_loss(self.model(x), y)
        return loss * float("inf") if len(self.seen) == self.broken_at else loss

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=0.01)


class Augmented(TensorDataset):
    """Images to which something random is done, drawn from torch's global generator."""

    def __getitem__(self, index: Any) -> Any:
        x, y = super().__getitem__(index)
        return x + 0.1 * torch.rand_like(x), y


def loader(images: int = 52, batch_size: int = 8, **share: int) -> DataLoader[Any]:
    y = torch.arange(float(images))[:, None]
    x = torch.randn(images, 4, generator=torch.Generator().manual_seed(1))
    batches = EpochBatches(EpochShuffle(images, seed=3), batch_size=batch_size, **share)
    return DataLoader(Augmented(x, y), batch_sampler=batches, generator=torch.Generator())


def train(folder: Path, module: Regression) -> list[Epoch]:
    """Epochs that were heard of, until the end or the signal."""
    heard: list[Epoch] = []
    try:
        fit(
            module,
            loader(),
            checkpoint_dir=folder,
            report=EpochReport(heard.append),
            device=torch.device("cpu"),
            signals=Signals(),
        )
    except Interrupted:
        assert module.stop_at is not None
    else:
        assert module.stop_at is None
    return heard


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Regression, list[Epoch]]:
    """A training that nothing interrupted."""
    module = Regression()
    return module, train(tmp_path_factory.mktemp("whole"), module)


@pytest.mark.parametrize("steps", [1, 3, BATCHES, BATCHES + 1, 2 * BATCHES, 3 * BATCHES - 1])
def test_a_training_that_is_stopped_anywhere_ends_with_the_same_weights(
    tmp_path: Path, whole: tuple[Regression, list[Epoch]], steps: int
) -> None:
    expected, epochs = whole
    first, second = Regression(stop_at=steps), Regression()
    heard = train(tmp_path, first) + train(tmp_path, second)
    assert first.seen + second.seen == expected.seen  # the very next batch, none twice
    assert len(first.seen) == steps
    assert [epoch.number for epoch in heard] == [1, 2, 3]
    assert [epoch.loss for epoch in heard] == [epoch.loss for epoch in epochs]
    for name, tensor in expected.model.state_dict().items():
        assert torch.equal(second.model.state_dict()[name], tensor), name


def test_two_interruptions_in_one_epoch_change_nothing(
    tmp_path: Path, whole: tuple[Regression, list[Epoch]]
) -> None:
    parts = [Regression(stop_at=9), Regression(stop_at=2), Regression()]
    heard = [epoch for part in parts for epoch in train(tmp_path, part)]
    assert [seen for part in parts for seen in part.seen] == whole[0].seen
    assert [epoch.loss for epoch in heard] == [epoch.loss for epoch in whole[1]]
    assert torch.equal(parts[-1].model[0].weight, whole[0].model[0].weight)


def test_the_signal_says_why_and_older_handlers_come_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for number, cause in ((signal.SIGTERM, "preemption"), (signal.SIGUSR2, "time limit")):
        module = Regression(stop_at=2, number=number)
        with pytest.raises(Interrupted, match=cause) as caught:
            fit(module, loader(), checkpoint_dir=tmp_path / cause, signals=Signals())
        assert caught.value.cause == cause
        assert signal.getsignal(signal.SIGTERM) is before


def test_two_checkpoints_are_kept_each_with_a_description(tmp_path: Path) -> None:
    train(tmp_path, Regression())
    files = sorted(tmp_path.glob("*.ckpt"))
    assert [file.name for file in files] == ["000000014.ckpt", "000000021.ckpt"]
    assert sorted(tmp_path.iterdir()) == sorted(
        f.with_name(f.name + e) for f in files for e in ("", ".json")
    )
    about = json.loads((tmp_path / "000000021.ckpt.json").read_text())
    assert (about["epoch"], about["batch"], about["step"]) == (3, 0, 21)
    assert set(about) >= {"sha256", "torch", "pytorch-lightning"}


@pytest.fixture
def stopped(tmp_path: Path) -> Iterator[Path]:
    """Checkpoints after the first epoch and in the middle of the second."""
    train(tmp_path, Regression(stop_at=10))
    assert [file.stem for file in sorted(tmp_path.glob("*.ckpt"))] == ["000000007", "000000010"]
    yield tmp_path


@pytest.mark.parametrize("harm", ["cut", "altered", "undescribed"])
def test_a_broken_checkpoint_is_refused_by_name_and_the_one_before_it_used(
    stopped: Path,
    whole: tuple[Regression, list[Epoch]],
    harm: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    file = stopped / "000000010.ckpt"
    content = file.read_bytes()
    if harm == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif harm == "altered":
        file.write_bytes(content[:-1000] + bytes([content[-1000] ^ 1]) + content[-999:])
    else:
        (stopped / "000000010.ckpt.json").unlink()
    with pytest.raises(CheckpointError, match=r"000000010\.ckpt is refused"):
        check(file)
    resumed = Regression()
    with caplog.at_level(logging.WARNING):
        train(stopped, resumed)
    assert "000000010.ckpt is refused" in caplog.text and "the one before it" in caplog.text
    assert resumed.seen == whole[0].seen[BATCHES:]
    assert torch.equal(resumed.model[0].weight, whole[0].model[0].weight)


def test_without_a_checkpoint_that_can_be_trusted_a_training_begins_anew(stopped: Path) -> None:
    for file in stopped.glob("*.ckpt"):
        file.write_bytes(b"")
    assert last_checkpoint(stopped) is None
    with pytest.raises(CheckpointError, match="holds no checkpoint that can be trusted"):
        trained_state(stopped, "model.")
    module = Regression()
    train(stopped, module)
    assert len(module.seen) == 3 * BATCHES


def test_the_last_checkpoint_holds_the_trained_weights(tmp_path: Path) -> None:
    module = Regression()
    train(tmp_path, module)
    state = trained_state(tmp_path, "model.")
    assert state.keys() == module.model.state_dict().keys()
    assert torch.equal(state["3.weight"], module.model[3].weight)


# ------------------------------------------------------------------- batch norms and small batches


def test_a_last_batch_of_one_image_is_filled_so_that_batch_norms_can_train(tmp_path: Path) -> None:
    module = Regression()
    fit(module, loader(images=17), checkpoint_dir=tmp_path)
    assert [len(seen) for seen in module.seen] == [8, 8, 2] * 3
    assert {y for seen in module.seen[:3] for y in seen} == set(range(17))


def test_batches_of_one_image_are_refused_where_a_batch_norm_needs_more(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"batch norms need two images .* data\.batch_size"):
        fit(Regression(), loader(batch_size=1), checkpoint_dir=tmp_path)


# ------------------------------------------------------------------------------------- divergence


@pytest.mark.parametrize("step", [BATCHES + 3, 2 * BATCHES])
def test_a_training_that_diverges_stops_there_and_keeps_what_was_good(
    tmp_path: Path, whole: tuple[Regression, list[Epoch]], step: int
) -> None:
    heard: list[Epoch] = []
    report = EpochReport(heard.append, validate=lambda: {})
    broken = Regression(broken_at=step)
    with pytest.raises(
        TrainingError, match=rf"loss is not finite at step {step} \(epoch 2 of 3\); train\.lr"
    ):
        fit(broken, loader(), checkpoint_dir=tmp_path, report=report)
    assert len(broken.seen) <= step + 1
    assert [epoch.number for epoch in heard] == [1]
    assert [file.stem for file in tmp_path.glob("*.ckpt")] == ["000000007"]
    resumed = Regression()
    train(tmp_path, resumed)
    assert torch.equal(resumed.model[0].weight, whole[0].model[0].weight)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    module = Regression()
    module.register_buffer("broken", torch.tensor(float("nan")))
    with pytest.raises(TrainingError, match=r"weights are not finite at step 7 \(epoch 1 of 3\)"):
        fit(module, loader(), checkpoint_dir=tmp_path)
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------- shares of a batch


def test_processes_share_the_batches_that_one_would_see() -> None:
    alone = list(loader().batch_sampler)
    shares = [list(loader(rank=r, world_size=2).batch_sampler) for r in range(2)]
    assert {len(share) for share in shares} == {len(alone)}
    for batch, *parts in zip(alone, *shares, strict=True):
        assert sorted(i for part in parts for i in part) == sorted(batch)
        assert len({len(part) for part in parts}) == 1


def test_a_last_batch_that_does_not_divide_is_filled_with_the_first_images() -> None:
    order = list(EpochShuffle(5, seed=0))
    shares = [
        list(EpochBatches(EpochShuffle(5, seed=0), batch_size=4, rank=r, world_size=4))
        for r in range(4)
    ]
    assert [share[1] for share in shares] == [[order[4]], [order[0]], [order[1]], [order[2]]]


def test_a_batch_that_can_not_be_shared_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="multiple of the job's 3 tasks"):
        EpochBatches(EpochShuffle(9, seed=0), batch_size=8, world_size=3)
