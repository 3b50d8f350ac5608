"""Jobs on SLURM, by submitit's batch scripts and SLURM's own commands."""

import os
import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paretopath.errors import LaunchError
from paretopath.launch.job import ENDLESS, Call, Job, JobState, Restartable, State, ended, last_line
from paretopath.recipe import Launch

_QUERY_S = 30.0  # for SLURM's commands to answer
_STATES: Mapping[str, State] = {
    "PENDING": "queued",
    "CONFIGURING": "queued",
    "RESV_DEL_HOLD": "queued",
    "RUNNING": "running",
    "COMPLETING": "running",
    "SUSPENDED": "running",
    "STOPPED": "running",
    "STAGE_OUT": "running",
    "SIGNALING": "running",
    "RESIZING": "running",
    "REQUEUED": "requeued",
    "REQUEUE_HOLD": "requeued",
    "REQUEUE_FED": "requeued",
    "SPECIAL_EXIT": "requeued",
}
"""Of SLURM's job state codes (squeue(1)), those of jobs that have not ended."""


def slurm_states(jobs: Sequence[Job]) -> list[JobState]:
    """How jobs on SLURM are, which is asked once for all of them."""
    known = _ask_slurm([job.id for job in jobs])
    return [_state(job, known.get(job.id)) for job in jobs]


def requeue_this_job() -> bool:
    """Called inside a SLURM job: puts it back into the queue, which ends its processes soon.

    Returns whether SLURM agreed.
    """
    done = _run("scontrol", "requeue", _this_job())
    return done is not None and done.returncode == 0


def is_this_job_running() -> bool:
    """Called inside a SLURM job: whether SLURM means it to go on: it was neither cancelled nor put
    back into the queue.
    """
    code, _, _ = _ask_slurm([_this_job()]).get(_this_job(), ("", "", 0))
    return code == "RUNNING"


def launch_slurm(calls: Sequence[Call], settings: Launch, folder: Path, name: str) -> list[Job]:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    require_slurm()
    executor = SlurmExecutor(folder, max_num_timeout=ENDLESS)
    executor.update_parameters(**_parameters(settings, folder, name, len(calls)))
    try:
        with executor.batch():
            submitted = [executor.submit(Restartable(call)) for call in calls]
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        said = [line for line in str(error).splitlines() if line.startswith("sbatch:")]
        text = said[0].removeprefix("sbatch: error: ") if said else last_line(str(error))
        raise LaunchError(f"SLURM does not take the job: {text}") from error
    return [Job("slurm", str(job.job_id), folder) for job in submitted]


def require_slurm() -> None:
    """LaunchError where this machine lacks SLURM's commands."""
    for command in ("sbatch", "srun"):
        if shutil.which(command) is None:
            raise LaunchError(
                f"launch slurm needs SLURM's commands on this machine, but there is no {command}"
            )


def cancel_slurm(jobs: Sequence[Job]) -> None:
    """Ends jobs on SLURM."""
    _run("scancel", *(job.id for job in jobs))


def _this_job() -> str:
    """The id of the job that this process is part of."""
    array, element = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    # an element by its number: the id of one of them is also that of the whole array
    return f"{array}_{element}" if array else os.environ["SLURM_JOB_ID"]


def _parameters(settings: Launch, folder: Path, name: str, count: int) -> dict[str, Any]:
    """What submitit makes the batch script of."""
    more: dict[str, Any] = {"requeue": True}
    more |= {key.replace("_", "-"): value for key, value in settings.sbatch.items()}
    if settings.gpus_per_node and settings.gpu_type:
        more["gpus-per-node"] = f"{settings.gpu_type}:{settings.gpus_per_node}"
    elif settings.gpus_per_node:
        more["gpus-per-node"] = settings.gpus_per_node
    parameters: dict[str, Any] = {
        "job_name": name,
        "partition": settings.partition,
        "account": settings.account,
        "nodes": settings.nodes,
        "ntasks_per_node": settings.tasks,
        "cpus_per_task": settings.cpus_per_task,
        "time": settings.time_minutes,
        "signal_delay_s": settings.grace_s,
        "stderr_to_stdout": True,
        "array_parallelism": settings.parallel or count,
        # a task that is killed takes the others with it: they would wait for it in vain
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={settings.cpus_per_task}"],
        "setup": [
            *(f"module load {shlex.quote(module)}" for module in settings.modules),
            *settings.setup,
            "export OMP_NUM_THREADS=${OMP_NUM_THREADS:-" + str(settings.cpus_per_task) + "}",
        ],
        "teardown": _teardown(folder, settings.retries),
        # flags that are off are left out
        "additional_parameters": {key: value for key, value in more.items() if value is not False},
    }
    if settings.memory_gb is not None:
        parameters["mem"] = f"{round(settings.memory_gb * 1024)}M"
    return {key: value for key, value in parameters.items() if value is not None}


def _teardown(folder: Path, retries: int) -> list[str]:
    """Shell lines after srun: requeue a job whose processes were killed, a few times.

    SLURM itself requeues what it preempts and what loses its node. A process that was killed, by
    the kernel for its memory or by hand, would end the job.
    """
    kills = shlex.quote(str(folder)) + '/"$SLURM_JOB_ID".kills'
    return [
        "code=$?",
        f'if [ "$code" -gt 128 ] && [ "$(cat {kills} 2>/dev/null | wc -l)" -lt {retries} ]; then',
        f'  echo "$code" >> {kills}',
        '  echo "killed by signal $((code - 128)): back to the queue"',
        # an element by its number: the id of one of them is also that of the whole array
        '  scontrol requeue "${SLURM_ARRAY_JOB_ID:-$SLURM_JOB_ID}'
        '${SLURM_ARRAY_TASK_ID:+_$SLURM_ARRAY_TASK_ID}"',
        "fi",
        'exit "$code"',
    ]


def _run(*command: str) -> subprocess.CompletedProcess[str] | None:
    """One of SLURM's commands; None if it is not there or does not answer."""
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=_QUERY_S)
    except (OSError, subprocess.TimeoutExpired):
        return None


def _ask_slurm(ids: Sequence[str]) -> dict[str, tuple[str, str, int]]:
    """SLURM's state, reason and number of restarts of the jobs that it knows.

    squeue knows jobs for some minutes after their end (MinJobAge), sacct for ever, where there is
    accounting.
    """
    if not ids:
        return {}
    whole = ",".join(sorted({identifier.split("_")[0] for identifier in ids}))
    columns = "JobArrayID:|,State:|,Reason:|,RestartCnt:|"
    shown = _run(
        "squeue", "--noheader", "--array", "--states=all", f"--jobs={whole}", "-O", columns
    )
    found: dict[str, tuple[str, str, int]] = {}
    for line in (shown.stdout if shown and shown.returncode == 0 else "").splitlines():
        parts = [part.strip() for part in line.split("|")]
        if len(parts) >= 4:
            found[parts[0]] = (parts[1], parts[2], int(parts[3] or 0))
    missing = [identifier for identifier in ids if identifier not in found]
    if missing:
        told = _run("sacct", "-nXP", "-o", "JobID,State", "-j", ",".join(missing))
        for line in (told.stdout if told and told.returncode == 0 else "").splitlines():
            identifier, _, state = line.partition("|")
            found[identifier] = (state.split()[0] if state.split() else "", "", 0)
    return found


def _state(job: Job, known: tuple[str, str, int] | None) -> JobState:
    code, reason, restarts = known or ("", "", 0)
    if code in _STATES:
        state = _STATES[code]
        if state == "queued" and restarts:
            state = "requeued"
        return JobState(state, reason if reason != "None" else "", restarts)
    if not code:
        return ended(job, "SLURM does not know it any more, and it left no result")
    why = code.replace("_", " ").lower()
    told = f": {reason}" if reason not in ("", "None") else ""
    return ended(job, f"SLURM says {why}{told}, and it left no result", restarts)
