"""``wandb sync`` of a training that was preempted, against a small server of this machine.

Users report that parts of one run overwrite each other when they are uploaded (wandb issues 3841,
5865): the server here keeps lines where they are sent, so it would show that.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from paretopath.recipe import Tracking as TrackingSettings
from paretopath.showing.tracking import WandbTracking, open_tracking
from paretopath.showing.tracking.identity import load_identity
from paretopath.showing.tracking.offline import next_offline_step
from tests.pipeline.showing.wandb_server import WandbServer, serving

NAME = "separate-3f2a"
EPOCHS = 6


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[WandbServer]:
    with serving() as found:
        yield found


def train(run_dir: Path, *, killed_after: int | None = None) -> None:
    """An attempt at a training, told from its first epoch as a resumed job tells it."""
    tracking = open_tracking(run_dir, TrackingSettings(mode="offline", entity="e", project="p"))
    assert isinstance(tracking, WandbTracking) and tracking.process
    tracker = tracking.start("retrain", NAME, config={"mode": "separate"})
    for epoch in range(EPOCHS if killed_after is None else killed_after):
        tracker.log({"train_loss": 1.0 / (1 + epoch)}, step=epoch)
    if killed_after is None:
        tracking.close()
        assert tracking.wait(60.0)
        return
    deadline = time.monotonic() + 60.0
    while not next_offline_step(run_dir, load_identity(run_dir, NAME).id):
        assert time.monotonic() < deadline, "nothing reached the disk"
        time.sleep(0.05)
    tracking.process.kill()
    tracking.process.wait()


def sync(run_dir: Path, server: WandbServer) -> None:
    """What the documentation tells people to type."""
    folders = sorted(map(str, run_dir.glob("wandb/offline-run-*")))
    own = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    done = subprocess.run(
        [sys.executable, "-m", "wandb", "sync", *folders],
        env=own | {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": "0" * 40},
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.returncode == 0, done.stderr


def test_a_preempted_training_is_uploaded_with_every_epoch_once(
    tmp_path: Path, server: WandbServer
) -> None:
    train(tmp_path, killed_after=4)
    time.sleep(1.0)  # folders are named by the second
    train(tmp_path)
    assert len(list(tmp_path.glob("wandb/offline-run-*"))) == 2
    for _ in range(2):  # what was uploaded is passed over
        sync(tmp_path, server)
        ((_, run),) = server.runs.items()
        losses = [(row["_step"], row["train_loss"]) for row in run.history]
        assert losses == [(epoch, 1.0 / (1 + epoch)) for epoch in range(EPOCHS)]
        assert not run.overwritten
