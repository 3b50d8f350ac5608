"""Processes that prepare batches, when a batch system signals all that a job has started."""

import multiprocessing
import subprocess
import sys
from collections.abc import Iterable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from paretopath.data import load_data
from paretopath.data.workers import ended_by_its_parent_alone
from tests.pipeline.data.pictures import data

pytestmark = pytest.mark.skipif(
    sys.platform == "darwin", reason="its processes can't tell who signals them"
)


def end_as_a_stranger(processes: Iterable[BaseProcess]) -> None:
    subprocess.run(["kill", *(str(process.pid) for process in processes)], check=True)  # SIGTERM


def echo(words: Connection) -> None:
    """A worker that says what it hears."""
    ended_by_its_parent_alone(0)
    while True:
        words.send(words.recv())


def test_workers_pass_over_a_strangers_signal(folder: Path) -> None:
    config = data(source="imagefolder", data_dir=str(folder), cache_mb=0, workers=2)
    splits = load_data(config, input_shape=(3, 8, 8))
    batches = iter(splits.loader("train", batch_size=1))
    for _ in range(2):  # of each worker one: both have begun
        next(batches)
    end_as_a_stranger(batches._workers)  # type: ignore[attr-defined]
    assert len(list(batches)) == len(splits.train) - 2


def test_workers_end_by_their_parent() -> None:
    here, there = multiprocessing.Pipe()
    worker = multiprocessing.get_context("fork").Process(target=echo, args=(there,), daemon=True)
    worker.start()
    for word in ("before", "after"):
        here.send(word)
        assert here.recv() == word
        end_as_a_stranger([worker])
    for _ in range(20):  # signals that come together count once
        worker.terminate()
        worker.join(1)
    assert worker.exitcode == 0
