"""What a job is, how it is, and what it left."""

import os
import pickle
import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal, Self

State = Literal["queued", "running", "requeued", "done", "failed"]

ENDLESS = 1_000_000  # restarts at a time limit: a job goes on for as long as it has work


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


def last_line(text: str) -> str:
    """The last line of a traceback that says something, without the path of a module."""
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return re.sub(r"^(\w+\.)+(?=\w+:)", "", lines[-1]) if lines else ""


def ended(job: Job, otherwise: str, restarts: int = 0) -> JobState:
    """The state of a job that runs no longer, by the result that it left."""
    found = outcome(job)
    if found is None:
        return JobState("failed", otherwise, restarts)
    kind, value = found
    if kind == "error":
        return JobState("failed", last_line(str(value)), restarts)
    return JobState("done", "", restarts)


def outcome(job: Job) -> tuple[str, Any] | None:
    """(``success``, value) or (``error``, traceback) that the first task left."""
    try:
        with Path(f"{job.folder}/{job.id}_0_result.pkl").open("rb") as file:
            kind, value = pickle.load(file)
    except (OSError, EOFError, pickle.UnpicklingError):
        return None
    return str(kind), value
