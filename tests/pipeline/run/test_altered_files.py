"""Files of a run directory that were altered: each is refused, none gives other figures."""

import json
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from paretopath import jobs
from paretopath.errors import CheckpointError, RunDirectoryError
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front
from paretopath.run import Run, build_space, build_table, keep_table
from paretopath.weights.files import read_metadata, read_state, write_state

WEIGHTS = {
    "scalar": torch.tensor(3),
    "half": torch.arange(6).reshape(2, 3).bfloat16(),
    "empty": torch.zeros(0, 4),
    "bias": torch.randn(5),
}


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(searched, tmp_path / "run"), device="cpu")


def flip(file: Path, position: int, bit: int = 0) -> None:
    content = bytearray(file.read_bytes())
    content[position] ^= 1 << bit
    file.write_bytes(content)


def test_a_flipped_bit_of_the_base_weights_is_refused(run: Run) -> None:
    flip(run.weights_file, run.weights_file.stat().st_size // 2)
    said = re.escape(f"{run.weights_file} is refused: it was altered")
    for job in (jobs.evaluate_run, jobs.search_run):
        with pytest.raises(CheckpointError, match=said):
            job(run)


def test_no_flipped_bit_of_a_weights_file_gives_other_tensors(tmp_path: Path) -> None:
    whole = tmp_path / "whole.safetensors"
    write_state(whole, WEIGHTS)
    file = tmp_path / "flipped.safetensors"
    refused = 0
    for position in range(whole.stat().st_size):
        shutil.copy(whole, file)
        flip(file, position, bit=position % 8)
        try:
            found = read_state(file)
        except CheckpointError:
            refused += 1
            continue
        assert found.keys() == WEIGHTS.keys(), position
        assert all(torch.equal(found[name], tensor) for name, tensor in WEIGHTS.items()), position
    assert refused > whole.stat().st_size / 2


def test_weights_without_a_checksum_still_open(run: Run) -> None:
    import safetensors.torch

    state = read_state(run.weights_file)
    safetensors.torch.save_file(state, run.weights_file)
    assert "sha256" not in read_metadata(run.weights_file)
    assert len(jobs.evaluate_run(run)) > 0


def test_a_large_file_is_hashed_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    read_state(run.weights_file)
    monkeypatch.setattr("paretopath.weights.files._digest", lambda state: pytest.fail("again"))
    assert read_state(run.weights_file)


def test_statistics_of_a_path_that_were_altered_are_refused(tmp_path: Path) -> None:
    write_state(tmp_path / "path.safetensors", {"norm.running_mean": torch.randn(3)})
    flip(tmp_path / "path.safetensors", (tmp_path / "path.safetensors").stat().st_size - 2)
    with pytest.raises(CheckpointError, match="was altered"):
        read_state(tmp_path / "path.safetensors")


def _digits_changed(text: str) -> str:
    """One digit of the first accuracy is another."""
    found = re.search(r'"accuracy": 0\.\d*?([1-8])', text)
    assert found
    return text[: found.start(1)] + str(int(found[1]) + 1) + text[found.end(1) :]


@pytest.mark.parametrize("kind", ["front", "sensitivity"])
def test_a_changed_digit_of_a_figure_is_refused(run: Run, kind: str) -> None:
    jobs.sensitivity_run(run)
    file = run.front_file if kind == "front" else run.sensitivity_file
    read: Callable[[Path], object] = Front.load if kind == "front" else Sensitivity.load
    read(file)
    file.write_text(_digits_changed(file.read_text()))
    with pytest.raises(RunDirectoryError, match=r"is refused: it was altered|contradict|follows"):
        read(file)
    content = json.loads(file.read_text())
    del content["sha256"]  # as files of before
    file.write_text(json.dumps(content))
    read(file)


def test_no_flipped_bit_of_the_costs_changes_a_cost(run: Run) -> None:
    space = build_space(run.recipe)
    paths = [space.full, space.smallest]
    expected = build_table(run, space)(paths).energy_mj.tolist()
    keep_table(build_table(run, space), run.costs_file)
    whole = run.costs_file.read_bytes()
    for position in np.linspace(0, len(whole) - 1, 8).astype(int).tolist():
        flip(run.costs_file, position, bit=6)
        assert build_table(run, space)(paths).energy_mj.tolist() == expected, position
        run.costs_file.write_bytes(whole)


def test_weights_have_the_rights_that_the_umask_gives(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        write_state(tmp_path / "weights.safetensors", WEIGHTS)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "weights.safetensors").stat().st_mode) == 0o644


def test_weights_that_may_not_be_read_say_so(tmp_path: Path) -> None:
    file = tmp_path / "weights.safetensors"
    write_state(file, WEIGHTS)
    file.chmod(0)
    user = os.geteuid()
    if user == 0:  # who may read everything
        os.seteuid(65534)
    try:
        with pytest.raises(CheckpointError, match=r"weights\.safetensors can't be read: permiss"):
            read_state(file)
    finally:
        os.seteuid(user)
