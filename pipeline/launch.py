"""Jobs that go on without the process that started them: on SLURM, or in the background here.

A job is a call of a function of a module with plain arguments. On SLURM several calls are one job
array. A job that reaches its time limit, is preempted or loses its node goes back to the queue and
calls its function again, which goes on from what is on disk. submitit (Facebook Research, MIT
licence) writes the batch script and carries call and result through files of the job's folder.
"""

import os
import pickle
import re
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

from pipeline.errors import LaunchError
from pipeline.recipe import Launch

State = Literal["queued", "running", "requeued", "done", "failed"]

_ENDLESS = 1_000_000  # restarts at a time limit: a job goes on for as long as it has work
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


@dataclass(frozen=True)
class Call:
    """What a job does.

    Attributes:
        function: of a module, so that another process can import it.
        arguments: that pickle takes.
        environment: variables that are set before the function is imported.
    """

    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """A job that was started, as another process can find it again.

    Attributes:
        where: ``slurm`` or ``local``.
        id: SLURM's (``17_2`` is an element of an array), or made up for a local job.
        folder: of its files.
        pid: of a local job.
    """

    where: Literal["local", "slurm"]
    id: str
    folder: Path
    pid: int | None = None

    @property
    def log_file(self) -> Path:
        """What its first task prints, all attempts in one file."""
        return Path(f"{self.folder}/{self.id}_0_log.out")

    def to_json(self) -> dict[str, Any]:
        """Plain values from which :meth:`from_json` makes an equal one."""
        return {**asdict(self), "folder": str(self.folder)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> Self:
        """The job that :meth:`to_json` described."""
        return cls(**{**values, "folder": Path(values["folder"])})


@dataclass(frozen=True)
class JobState:
    """How a job is.

    Attributes:
        state: ``requeued``: waiting to go on after an interruption.
        reason: one line: why it failed or waits; empty where there is nothing to say.
        restarts: how often it was put back into the queue.
    """

    state: State
    reason: str = ""
    restarts: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen."""
        return self.state in ("done", "failed")


class Restartable:
    """A call as the job's process makes it; submitit asks for :meth:`checkpoint` at a time limit.

    Public because pickles name it.
    """

    def __init__(self, call: Call) -> None:
        self.call = call

    def __call__(self) -> Any:
        """Calls the function."""
        os.environ.update(self.call.environment)
        return self.call.function(*self.call.arguments)

    def checkpoint(self) -> Any:
        """The same call: its function goes on from what is on disk."""
        from submitit.helpers import DelayedSubmission

        return DelayedSubmission(self)


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
        return _launch_slurm(calls, settings, folder, name)
    return [_launch_local(call, folder) for call in calls]


def states(jobs: Sequence[Job]) -> list[JobState]:
    """How jobs are, in their order; SLURM is asked once for all of them."""
    known = _ask_slurm([job.id for job in jobs if job.where == "slurm"])
    return [_state(job, known.get(job.id)) for job in jobs]


def result(job: Job) -> Any:
    """What the function of a finished job returned, in its first task.

    Raises:
        LaunchError: it raised something, whose last line the message holds, or left nothing.
    """
    outcome = _outcome(job)
    if outcome is None:
        raise LaunchError(f"job {job.id} has left no result; see {job.log_file}")
    kind, value = outcome
    if kind == "error":
        raise LaunchError(f"job {job.id} failed: {last_line(str(value))}; see {job.log_file}")
    return value


def cancel(jobs: Sequence[Job]) -> None:
    """Ends jobs that have not ended; they are not requeued."""
    ids = [job.id for job in jobs if job.where == "slurm"]
    if ids:
        _run("scancel", *ids)
    for job in jobs:
        if job.where == "local" and job.pid is not None and _is_alive(job):
            os.killpg(job.pid, signal.SIGTERM)


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


def last_line(text: str) -> str:
    """The last line of a traceback that says something, without the path of a module."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return re.sub(r"^(\w+\.)+(?=\w+:)", "", lines[-1]) if lines else ""


# ------------------------------------------------------------------------------------------ SLURM


def _this_job() -> str:
    """The id of the job that this process is part of."""
    array, element = (os.environ.get(f"SLURM_ARRAY_{name}_ID") for name in ("JOB", "TASK"))
    # an element by its number: the id of one of them is also that of the whole array
    return f"{array}_{element}" if array else os.environ["SLURM_JOB_ID"]


def _launch_slurm(calls: Sequence[Call], settings: Launch, folder: Path, name: str) -> list[Job]:
    from submitit import SlurmExecutor
    from submitit.core.utils import FailedJobError, FailedSubmissionError

    for command in ("sbatch", "srun"):
        if shutil.which(command) is None:
            raise LaunchError(
                f"launch slurm needs SLURM's commands on this machine, but there is no {command}"
            )
    executor = SlurmExecutor(folder, max_num_timeout=_ENDLESS)
    executor.update_parameters(**_parameters(settings, folder, name, len(calls)))
    try:
        with executor.batch():
            submitted = [executor.submit(Restartable(call)) for call in calls]
    except (FailedJobError, FailedSubmissionError, subprocess.CalledProcessError) as error:
        said = [line for line in str(error).splitlines() if line.startswith("sbatch:")]
        text = said[0].removeprefix("sbatch: error: ") if said else last_line(str(error))
        raise LaunchError(f"SLURM does not take the job: {text}") from error
    return [Job("slurm", str(job.job_id), folder) for job in submitted]


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
    if job.where == "local":
        if _is_alive(job):
            return JobState("running")
        return _ended(job, "its process ended without a result")
    code, reason, restarts = known or ("", "", 0)
    if code in _STATES:
        state = _STATES[code]
        if state == "queued" and restarts:
            state = "requeued"
        return JobState(state, reason if reason != "None" else "", restarts)
    if not code:
        return _ended(job, "SLURM does not know it any more, and it left no result")
    why = code.replace("_", " ").lower()
    told = f": {reason}" if reason not in ("", "None") else ""
    return _ended(job, f"SLURM says {why}{told}, and it left no result", restarts)


def _ended(job: Job, otherwise: str, restarts: int = 0) -> JobState:
    """The state of a job that runs no longer, by the result that it left."""
    outcome = _outcome(job)
    if outcome is None:
        return JobState("failed", otherwise, restarts)
    kind, value = outcome
    if kind == "error":
        return JobState("failed", last_line(str(value)), restarts)
    return JobState("done", "", restarts)


def _outcome(job: Job) -> tuple[str, Any] | None:
    """(``success``, value) or (``error``, traceback) that the first task left."""
    try:
        with Path(f"{job.folder}/{job.id}_0_result.pkl").open("rb") as file:
            kind, value = pickle.load(file)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return str(kind), value


# ------------------------------------------------------------------------------------------- here


def _launch_local(call: Call, folder: Path) -> Job:
    from submitit.helpers import DelayedSubmission

    identifier = f"here-{secrets.token_hex(4)}"
    delayed = DelayedSubmission(Restartable(call))
    delayed.set_timeout(60 * 24 * 3650, _ENDLESS)
    delayed.dump(folder / f"{identifier}_submitted.pkl")
    own = {
        "SUBMITIT_EXECUTOR": "local",
        "SUBMITIT_LOCAL_JOB_ID": identifier,
        "SUBMITIT_LOCAL_NTASKS": "1",
        "SUBMITIT_LOCAL_GLOBALID": "0",
        "SUBMITIT_LOCAL_LOCALID": "0",
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    with (folder / f"{identifier}_0_log.out").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-u", "-m", "submitit.core._submit", str(folder)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=os.environ | own | dict(call.environment),
            start_new_session=True,  # a Ctrl-C is for the command that waits
        )
    return Job("local", identifier, folder, process.pid)


def _is_alive(job: Job) -> bool:
    """Whether a local job's process runs: not ended, and not another one with its number."""
    status = Path(f"/proc/{job.pid}")
    try:
        if (status / "stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        return b"submitit.core._submit" in (status / "cmdline").read_bytes()
    except OSError:
        pass
    if status.parent.joinpath("self").exists() or job.pid is None:
        return False
    try:
        os.kill(job.pid, 0)  # no /proc on this system
    except OSError:
        return False
    return True
