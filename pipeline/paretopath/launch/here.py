"""Jobs in the background of this machine: processes that outlive the one that starts them."""

import os
import secrets
import signal
import subprocess
import sys
from pathlib import Path

from paretopath.launch.job import ENDLESS, Call, Job, JobState, Restartable, ended


def here_state(job: Job) -> JobState:
    """How a job of this machine is."""
    if _is_alive(job):
        return JobState("running")
    return ended(job, "its process ended without a result")


def cancel_here(job: Job) -> None:
    """Ends a job of this machine."""
    if job.pid is not None and _is_alive(job):
        os.killpg(job.pid, signal.SIGTERM)


def launch_here(call: Call, folder: Path) -> Job:
    from submitit.helpers import DelayedSubmission

    identifier = f"here-{secrets.token_hex(4)}"
    delayed = DelayedSubmission(Restartable(call))
    delayed.set_timeout(60 * 24 * 3650, ENDLESS)
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
        arguments = (status / "cmdline").read_bytes()
        # none for a moment, after the process has begun and before it has ended
        return not arguments or b"submitit.core._submit" in arguments
    except OSError:
        pass
    if status.parent.joinpath("self").exists() or job.pid is None:
        return False
    try:
        os.kill(job.pid, 0)  # no /proc on this system
    except OSError:
        return False
    return True
