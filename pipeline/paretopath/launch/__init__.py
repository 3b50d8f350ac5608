"""Jobs that go on without the process that started them: on SLURM, or in the background here.

A job is a call of a function of a module with plain arguments. On SLURM several calls are one job
array. A job that reaches its time limit, is preempted or loses its node goes back to the queue and
calls its function again, which goes on from what is on disk. submitit (Facebook Research, MIT
licence) writes the batch script and carries call and result through files of the job's folder.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from paretopath.errors import LaunchError
from paretopath.launch.here import cancel_here, here_state, launch_here
from paretopath.launch.job import Call, Job, JobState, State, last_line, outcome
from paretopath.launch.slurm import (
    cancel_slurm,
    is_this_job_running,
    launch_slurm,
    requeue_this_job,
    require_slurm,
    slurm_states,
)
from paretopath.recipe import Launch

__all__ = [
    "Call",
    "Job",
    "JobState",
    "State",
    "cancel",
    "is_this_job_running",
    "launch",
    "requeue_this_job",
    "require_slurm",
    "result",
    "states",
]


def launch(
    calls: Sequence[Call],
    settings: Launch,
    *,
    folder: Path,
    name: str,
    where: Literal["local", "slurm"] | None = None,
) -> list[Job]:
    """Starts a job for each call, and returns at once.

    Args:
        calls: at least one.
        settings: of the recipe; on this machine only ``setup`` does not apply.
        folder: for scripts, pickles and logs; every node must see it.
        name: that SLURM shows.
        where: ``settings.where`` if None.

    Returns:
        The jobs, in the order of the calls.

    Raises:
        LaunchError: there is no SLURM here, or it refuses the jobs, with its own words.
    """
    folder = folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    if (where or settings.where) == "slurm":
        return launch_slurm(calls, settings, folder, name)
    return [launch_here(call, folder) for call in calls]


def states(jobs: Sequence[Job]) -> list[JobState]:
    """How jobs are, in their order; SLURM is asked once for all of them."""
    on_slurm = iter(slurm_states([job for job in jobs if job.where == "slurm"]))
    return [next(on_slurm) if job.where == "slurm" else here_state(job) for job in jobs]


def result(job: Job) -> Any:
    """What the function of a finished job returned, in its first task.

    Raises:
        LaunchError: it raised something, whose last line the message holds, or left nothing.
    """
    found = outcome(job)
    if found is None:
        raise LaunchError(f"job {job.id} has left no result; see {job.log_file}")
    kind, value = found
    if kind == "error":
        raise LaunchError(f"job {job.id} failed: {last_line(str(value))}; see {job.log_file}")
    return value


def cancel(jobs: Sequence[Job]) -> None:
    """Ends jobs that have not ended; they are not requeued."""
    on_slurm = [job for job in jobs if job.where == "slurm"]
    if on_slurm:
        cancel_slurm(on_slurm)
    for job in jobs:
        if job.where == "local":
            cancel_here(job)
