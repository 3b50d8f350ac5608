"""Jobs on a real SLURM: arrays, failures, kills and requeues."""

import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from paretopath.errors import LaunchError
from paretopath.launch import Call, Job, JobState, cancel, launch, result, states
from paretopath.recipe import Launch
from tests.cluster.slurm import Slurm
from tests.pipeline.launch import launch_calls

SETTINGS = {"where": "slurm", "cpus_per_task": 1, "time_minutes": 10}


def settings(**changes: object) -> Launch:
    return Launch.model_validate(SETTINGS | changes)


def wait_until(jobs: Sequence[Job], *wanted: str, timeout_s: float = 60.0) -> list[JobState]:
    """The states of jobs, once all are among those wanted."""
    deadline = time.monotonic() + timeout_s
    now = states(jobs)
    while any(found.state not in wanted for found in now):
        assert time.monotonic() < deadline, now
        time.sleep(0.3)
        now = states(jobs)
    return now


def test_an_array_runs_calls_and_brings_their_results(slurm: Slurm, tmp_path: Path) -> None:
    calls = [
        Call(launch_calls.double, (21,)),
        Call(launch_calls.fail),
        Call(launch_calls.die_at_first, (str(tmp_path / "calls"),)),
    ]
    jobs = launch(calls, settings(), folder=tmp_path / "jobs", name="three")
    assert [job.id.split("_")[1] for job in jobs] == ["0", "1", "2"]
    done, failed, killed = wait_until(jobs, "done", "failed")
    assert result(jobs[0]) == 42
    assert "doubling 21" in jobs[0].log_file.read_text()
    assert failed == JobState("failed", "ValueError: this call is meant to fail")
    with pytest.raises(LaunchError, match=f"job {jobs[1].id} failed: ValueError: this call"):
        result(jobs[1])
    # it was killed the first time, and went back to the queue by itself
    assert (killed.state, killed.restarts, result(jobs[2])) == ("done", 1, 2)
    assert done.state == "done"


def test_a_job_that_is_always_killed_fails_after_its_retries(slurm: Slurm, tmp_path: Path) -> None:
    calls = [Call(launch_calls.always_die)]
    (job,) = launch(calls, settings(retries=0), folder=tmp_path, name="dies")
    (state,) = wait_until([job], "failed")
    assert "left no result" in state.reason and state.restarts == 0


@pytest.mark.cluster
@pytest.mark.timeout(300)
def test_a_short_job_that_is_preempted_often_goes_on(slurm: Slurm, tmp_path: Path) -> None:
    """submitit takes each of these for a time limit, since the job's is short, and by default
    gives up at the fourth (submitit issue 1656).
    """
    call = Call(launch_calls.preempted_at_first, (str(tmp_path / "calls"), 4))
    (job,) = launch(
        [call], settings(time_minutes=2, grace_s=10), folder=tmp_path / "jobs", name="short"
    )
    (state,) = wait_until([job], "done", "failed", timeout_s=240.0)
    assert state.state == "done", state.reason
    assert result(job) == 5


def test_what_slurm_refuses_is_said_in_its_words(slurm: Slurm, tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match=r"SLURM does not take the job: .*partition"):
        launch([Call(launch_calls.fail)], settings(partition="no"), folder=tmp_path, name="x")


def test_a_job_has_the_tasks_variables_and_setup_that_it_asks_for(
    slurm: Slurm, tmp_path: Path
) -> None:
    chosen = settings(tasks_per_node=2, setup=["export GREETING=hello"])
    (job,) = launch([Call(launch_calls.ranks)], chosen, folder=tmp_path / "a", name="ranks")
    (greet,) = launch(
        [Call(launch_calls.variable, ("GREETING",))], chosen, folder=tmp_path / "b", name="greet"
    )
    wait_until([job, greet], "done")
    assert result(job) == ("2", "0")
    assert result(greet) == "hello"


def test_a_cancelled_job_ends_and_stays_ended(slurm: Slurm, tmp_path: Path) -> None:
    calls = [Call(launch_calls.wait_for, (str(tmp_path / "never"),))]
    jobs = launch(calls, settings(), folder=tmp_path, name="waits")
    wait_until(jobs, "running")
    cancel(jobs)
    (state,) = wait_until(jobs, "failed")
    assert "cancelled" in state.reason
