"""Jobs in the background of this machine, and what a recipe may ask of a cluster."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from paretopath.errors import LaunchError
from paretopath.launch import Call, Job, JobState, cancel, launch, result, states
from paretopath.launch.job import last_line
from paretopath.launch.slurm import _parameters
from paretopath.recipe import Launch
from tests.pipeline.launch import launch_calls


def wait_until_ended(job: Job) -> JobState:
    deadline = time.monotonic() + 60
    while not (now := states([job])[0]).has_ended:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return now


def test_a_job_here_outlives_the_call_and_leaves_its_result_and_its_log(tmp_path: Path) -> None:
    (job,) = launch([Call(launch_calls.double, (4,))], Launch(), folder=tmp_path, name="n")
    found = Job.from_json(json.loads(json.dumps(job.to_json())))  # as another process finds it
    assert found == job
    assert wait_until_ended(found) == JobState("done")
    assert result(found) == 8
    assert "doubling 4" in found.log_file.read_text()


def test_a_failed_job_says_why_in_one_line(tmp_path: Path) -> None:
    (job,) = launch([Call(launch_calls.fail)], Launch(), folder=tmp_path, name="n")
    assert wait_until_ended(job) == JobState("failed", "ValueError: this call is meant to fail")
    with pytest.raises(
        LaunchError, match=r"ValueError: this call is meant to fail; see .*log\.out"
    ):
        result(job)


def test_a_job_that_is_cancelled_has_failed_without_a_result(tmp_path: Path) -> None:
    calls = [Call(launch_calls.wait_for, (str(tmp_path / "never"),))]
    (job,) = launch(calls, Launch(), folder=tmp_path, name="n")
    assert states([job]) == [JobState("running")]
    while "Starting" not in job.log_file.read_text():
        time.sleep(0.05)
    cancel([job])
    if states([job])[0].state == "running":  # a job lets a first SIGTERM pass: it may save its work
        assert job.pid is not None
        os.kill(job.pid, signal.SIGKILL)
    assert wait_until_ended(job) == JobState("failed", "its process ended without a result")


def test_the_last_line_of_a_traceback_is_the_reason() -> None:
    text = "Traceback:\n  File x\npipeline.errors.DataError: images are gone\n\n"
    assert last_line(text) == "DataError: images are gone"
    assert last_line("") == ""


def test_batch_options_come_from_the_recipe(tmp_path: Path) -> None:
    section = Launch(
        partition="gpu",
        gpus_per_node=4,
        gpu_type="a100",
        nodes=2,
        memory_gb=1.5,
        modules=("cuda/12.8",),
        setup=("source env",),
        sbatch={"qos": "high", "exclusive": True, "contiguous": False},
        parallel=3,
    )
    found = _parameters(section, tmp_path, "name", 8)
    assert (found["partition"], found["nodes"], found["ntasks_per_node"]) == ("gpu", 2, 4)
    assert found["mem"] == "1536M" and found["array_parallelism"] == 3
    assert found["setup"][:2] == ["module load cuda/12.8", "source env"]
    assert found["additional_parameters"] == {
        "requeue": True,
        "qos": "high",
        "exclusive": True,
        "gpus-per-node": "a100:4",
    }
    assert "account" not in found


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"gpus_per_node": 2, "tasks_per_node": 3}, "one a GPU, but got 3 for 2 GPUs"),
        ({"strategy": "fsdp"}, "fsdp shards weights over GPUs, but gpus_per_node is 0"),
        ({"gpu_type": "a100"}, "gpu_type needs gpus_per_node"),
        ({"time_minutes": 1, "grace_s": 60}, "less than the time limit, but got 60 s of 60 s"),
        ({"sbatch": {"partition": "x"}}, "'partition': the field partition sets it"),
        ({"sbatch": {"cpus_per_task": 2}}, "the field cpus_per_task sets it"),
        ({"sbatch": {"array": "0-3"}}, "'array': the launcher sets it"),
        ({"sbatch": {"--qos": "high"}}, "without hyphens in front"),
    ],
)
def test_a_launch_that_does_not_fit_together_is_refused(
    values: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValidationError, match=message):
        Launch.model_validate(values)
