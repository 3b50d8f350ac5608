"""Processes that prepare batches, when a batch system signals all that a job has started."""

import subprocess
import sys
from pathlib import Path

import pytest

from paretopath.data import load_data
from tests.pipeline.data.pictures import data


@pytest.mark.skipif(sys.platform == "darwin", reason="its processes can't tell who signals them")
def test_workers_pass_over_a_strangers_signal_and_end_by_their_parents(folder: Path) -> None:
    config = data(source="imagefolder", data_dir=str(folder), cache_mb=0, workers=2)
    splits = load_data(config, input_shape=(3, 8, 8))
    batches = iter(splits.loader("train", batch_size=1))
    next(batches)
    workers = batches._workers  # type: ignore[attr-defined]
    subprocess.run(["kill", *(str(worker.pid) for worker in workers)], check=True)  # by SIGTERM
    assert len(list(batches)) == len(splits.train) - 1
    assert all(worker.is_alive() for worker in workers)
    for worker in workers:
        worker.terminate()  # as when a loader gives one up
        worker.join(20)
        assert worker.exitcode == 0
