"""How far retrainings are, as files of the run directory tell."""

import shutil
from pathlib import Path

import pytest

from paretopath import jobs
from paretopath.errors import CheckpointError
from paretopath.jobs.retraining.progress import Progress
from paretopath.run import Run
from paretopath.training.epoch import Epoch
from paretopath.weights.files import read_state


@pytest.fixture
def run(searched: Path, tmp_path: Path) -> Run:
    return Run.open(shutil.copytree(searched, tmp_path / "run"), device="cpu")


def test_progress_comes_back_from_its_file_and_a_repeated_epoch_takes_its_place(
    tmp_path: Path,
) -> None:
    progress = Progress(3).begun()
    for number, loss in ((1, 3.0), (2, 2.0), (2, 2.5)):
        progress = progress.after(Epoch(number, 3, loss, {"a": 0.5} if number == 1 else {}))
    progress = progress.ended("preemption").begun()
    progress.save(tmp_path)
    found = Progress.load(tmp_path)
    assert found == progress
    assert [(e.number, e.loss) for e in found.epochs] == [(1, 3.0), (2, 2.5)]
    assert found.metrics == {"a": 0.5}
    assert [attempt.ended for attempt in found.attempts] == ["preemption", ""]
    (tmp_path / "progress.json").write_text("{")
    assert Progress.load(tmp_path) is None


def test_a_retraining_is_new_then_interrupted_then_done_and_collected_once(run: Run) -> None:
    (job,) = jobs.plan_retraining(run, selection="knee", mode="separate")
    assert [one.state for one in jobs.statuses(run, [job])] == ["new"]
    assert jobs.statuses(run) == []

    def stop(epoch: Epoch) -> None:
        if epoch.number == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        jobs.retrain(run, job, on_epoch=stop)
    (one,) = jobs.statuses(run)
    assert (one.state, one.reason, one.to_json()["epoch"]) == (
        "interrupted",
        "interrupted by hand",
        1,
    )
    assert not jobs.collect_finished(run, [one])
    jobs.retrain(run, job)
    (one,) = jobs.statuses(run)
    assert one.state == "done" and one.progress
    assert [epoch.number for epoch in one.progress.epochs] == [1, 2]
    assert jobs.collect_finished(run, [one])
    assert not jobs.collect_finished(run, [one])
    assert "separate" in run.front()[job.paths[0].id].retrained


def test_trained_weights_that_were_altered_are_refused_by_name(run: Run) -> None:
    (job,) = jobs.plan_retraining(run, selection="knee", mode="separate")
    jobs.retrain(run, job)
    file = job.folder / "weights.safetensors"
    assert read_state(file)
    content = file.read_bytes()
    file.write_bytes(content[:-4] + b"\0\0\0\1")
    with pytest.raises(CheckpointError, match=r"weights\.safetensors is refused: .*SHA-256"):
        read_state(file)
