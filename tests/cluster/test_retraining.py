"""Retraining as jobs that are killed and requeued: as if nothing had happened."""

import json
import os
import re
import shutil
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import pytest
import yaml

from paretopath import jobs
from paretopath.front import Point
from paretopath.jobs import RetrainStatus
from paretopath.run import Run, build_space
from tests.cluster.slurm import Slurm
from tests.pipeline.showing.wandb_file import read_runs

T = TypeVar("T")
EPOCHS = 5
LAUNCH = {
    "where": "slurm",
    "tasks_per_node": 2,
    "cpus_per_task": 1,
    "time_minutes": 10,
    "grace_s": 30,
    "setup": ["export WANDB_MODE=offline CUDA_VISIBLE_DEVICES="],
}


def open_run(searched: Path, folder: Path) -> Run:
    """A copy of the searched run whose retraining takes some seconds."""
    copied = shutil.copytree(searched, folder)
    recipe = yaml.safe_load((copied / "recipe.yaml").read_text())
    recipe["retrain"] |= {"epochs": EPOCHS, "lr": 1e-3}
    recipe["data"]["batch_size"] = 16
    recipe["tracking"]["mode"] = "offline"
    recipe["launch"] = LAUNCH
    (copied / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    run = Run.open(copied, device="cpu")
    # four paths to retrain, whichever of them were better
    front = run.front()
    trials = {
        t.costs["energy_mj"]: t
        for t in run.trials(build_space(run.recipe))
        if t.path != front.full.path
    }
    points = [
        replace(Point.of_trial(trials[energy]), accuracy=0.5 + 0.01 * i)
        for i, energy in enumerate(sorted(trials)[:4])
    ]
    replace(front, points=tuple(points)).save(run.front_file)
    return run


def wait_for(ask: Callable[[], T], until: Callable[[T], bool], s: float) -> T:
    deadline = time.monotonic() + s
    found = ask()
    while not until(found):
        assert time.monotonic() < deadline, found
        time.sleep(0.1)
        found = ask()
    return found


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_four_jobs_of_two_tasks_end_whole_though_one_is_killed_and_one_requeued(
    slurm: Slurm, searched: Path, tmp_path: Path
) -> None:
    run = open_run(searched, tmp_path / "run")
    planned = jobs.plan_retraining(run, selection="all", mode="separate")
    assert len(planned) == 4
    begun = jobs.launch_retraining(run, planned)
    ids = [one.launched.id for one in begun if one.launched]
    # closed and opened again: the same jobs, none submitted twice
    again = jobs.launch_retraining(run, planned)
    assert [one.launched.id for one in again if one.launched] == ids and len(set(ids)) == 4

    def ask() -> list[RetrainStatus]:
        return jobs.statuses(run, planned)

    def in_an_epoch(which: int) -> Callable[[list[RetrainStatus]], bool]:
        def check(found: list[RetrainStatus]) -> bool:
            epoch = found[which].epoch
            assert found[which].state != "failed", found[which].reason
            return epoch is not None and epoch.number >= 2

        return check

    wait_for(ask, in_an_epoch(0), 200)
    pids = slurm.processes(ids[0])
    assert len(pids) >= 2
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    wait_for(ask, in_an_epoch(1), 200)
    slurm.command("scontrol", "requeue", ids[1])
    ended = wait_for(ask, lambda found: all(one.has_ended for one in found), 300)

    assert [one.state for one in ended] == ["done"] * 4
    assert [one.restarts for one in ended][:2] == [1, 1]
    for one in ended:
        assert one.progress is not None
        assert [epoch.number for epoch in one.progress.epochs] == list(range(1, EPOCHS + 1))
    killed, requeued = (one.progress for one in ended[:2])
    assert killed and [attempt.ended for attempt in killed.attempts] == ["", "done"]
    assert requeued and [attempt.ended for attempt in requeued.attempts] == ["preemption", "done"]
    logs = [one.launched.log_file.read_text() for one in ended if one.launched]
    assert "killed by signal 9: back to the queue" in logs[0]
    # it went on in the middle of an epoch
    match = re.search(
        r"going on from \d+\.ckpt, after (\d) epochs and (\d+) of \d+ batches", logs[1]
    )
    assert match and int(match[1]) >= 2 and int(match[2]) > 0

    # a job ends some seconds after its result is there: when W&B has everything
    wait_for(slurm.queue, lambda queue: not queue, 100)
    check_tracked(run, [job.paths[0].id for job in planned])
    assert jobs.collect_finished(run, ended)
    assert not jobs.collect_finished(run, ended)
    front = run.front()
    for job in planned:
        assert front[job.paths[0].id].retrained["separate"].accuracy > 0
    for one in ended:
        weights = one.job.folder / "weights.safetensors"
        about = json.loads(weights.with_name("weights.safetensors.json").read_text())
        assert about["paths"] == [dict(one.job.paths[0])]

    # the same training in one process that nothing interrupted
    alone = open_run(searched, tmp_path / "alone")
    jobs.retrain(alone, planned[1])
    progress = jobs.statuses(alone, [planned[1]])[0].progress
    assert progress is not None
    for here, there in zip(progress.epochs, requeued.epochs, strict=True):
        assert here.loss == pytest.approx(there.loss, rel=2e-3)


def check_tracked(run: Run, paths: list[str]) -> None:
    """One W&B run a path, whose rows are the epochs, each once, in order."""
    parts: dict[str, list[int]] = {}
    names: dict[str, str] = {}
    for part in read_runs(run.directory):
        rows = [row for row in part.history if "train_loss" in row]
        parts.setdefault(part.id, []).extend(int(row["epoch"]) for row in rows)
        names[part.id] = part.name
    assert {name.split("separate-")[1] for name in names.values()} == set(paths)
    assert len(parts) == len(paths)
    assert list(parts.values()) == [list(range(1, EPOCHS + 1))] * len(paths)


@pytest.mark.cluster
@pytest.mark.timeout(600)
def test_one_job_trains_paths_together_whose_steps_leave_weights_unused(
    slurm: Slurm, searched: Path, tmp_path: Path
) -> None:
    run = open_run(searched, tmp_path / "run")
    planned = jobs.plan_retraining(run, selection="all", mode="shared")
    jobs.launch_retraining(run, planned)
    (ended,) = wait_for(lambda: jobs.statuses(run, planned), lambda f: f[0].has_ended, 250)
    assert (ended.state, ended.reason) == ("done", "")
    assert ended.progress is not None
    last = ended.progress.epochs[-1]
    assert last.number == EPOCHS and len(last.metrics) >= 3
    assert jobs.collect_finished(run, [ended])
    measured = [row for row in jobs.evaluate_run(run) if row["weights"] == "shared"]
    assert len(measured) >= 3
