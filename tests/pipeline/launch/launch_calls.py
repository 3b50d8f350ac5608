"""What the jobs of tests do: functions that a job's process imports."""

import os
import signal
import time
from pathlib import Path


def double(number: int) -> int:
    """Twice a number."""
    print(f"doubling {number}", flush=True)
    return 2 * number


def fail() -> None:
    """Raises an error."""
    raise ValueError("this call is meant to fail")


def variable(name: str) -> str | None:
    """A variable of the environment."""
    return os.environ.get(name)


def wait_for(file: str) -> str:
    """Waits until a file exists."""
    while not Path(file).exists():
        time.sleep(0.05)
    return "seen"


def die_at_first(file: str) -> int:
    """Kills its own process the first time that it is called; returns how often it was."""
    calls = Path(file)
    with calls.open("a") as stream:
        stream.write("called\n")
    number = len(calls.read_text().splitlines())
    if number == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def preempted_at_first(file: str, times: int) -> int:
    """Is told to leave, as by SLURM, the first times that it is called; how often it was called."""
    calls = Path(file)
    with calls.open("a") as stream:
        stream.write("called\n")
    number = len(calls.read_text().splitlines())
    if number <= times:
        os.kill(os.getpid(), signal.SIGUSR2)
        time.sleep(60.0)  # until it is gone
    return number


def always_die() -> None:
    """Kills its own process."""
    os.kill(os.getpid(), signal.SIGKILL)


def ranks() -> tuple[str, str]:
    """SLURM's number of tasks, and this one's place."""
    return os.environ["SLURM_NTASKS"], os.environ["SLURM_PROCID"]
