"""How far a retraining is, kept in its folder: for those who watch, and for the next attempt."""

import json
import os
import socket
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

from paretopath.files import write_atomically
from paretopath.training.epoch import Epoch

FILE = "progress.json"


@dataclass(frozen=True)
class Attempt:
    """One process's go at a training.

    Attributes:
        started: in UTC, ISO 8601.
        host, pid: of its first process.
        job: SLURM's id; None here.
        ended: why it ended: ``done``, ``time limit``, ``preemption``, ``failed: …``; empty while it
            runs, and after it was killed.
    """

    started: str
    host: str
    pid: int
    job: str | None = None
    ended: str = ""

    @classmethod
    def begin(cls) -> Self:
        """That of this process, now."""
        array, element = (os.environ.get(f"SLURM_ARRAY_{n}_ID") for n in ("JOB", "TASK"))
        job = f"{array}_{element}" if array else os.environ.get("SLURM_JOB_ID")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return cls(now, socket.gethostname(), os.getpid(), job)


@dataclass(frozen=True)
class Progress:
    """A training so far.

    Attributes:
        of: epochs asked for.
        epochs: those that are done, from 1 without a gap.
        attempts: oldest first.
    """

    of: int
    epochs: tuple[Epoch, ...] = ()
    attempts: tuple[Attempt, ...] = ()

    @classmethod
    def load(cls, folder: Path) -> Self | None:
        """That of a folder; None where nothing has begun, or the file can't be read."""
        try:
            found = json.loads((folder / FILE).read_text())
            return cls(
                found["of"],
                tuple(Epoch(**{**epoch, "of": found["of"]}) for epoch in found["epochs"]),
                tuple(Attempt(**attempt) for attempt in found["attempts"]),
            )
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def save(self, folder: Path) -> None:
        """Writes it into a folder."""
        epochs = [
            {"number": e.number, "loss": e.loss, "metrics": dict(e.metrics)} for e in self.epochs
        ]
        attempts = [asdict(attempt) for attempt in self.attempts]
        content = {"of": self.of, "epochs": epochs, "attempts": attempts}
        write_atomically(folder / FILE, json.dumps(content) + "\n")

    def begun(self) -> Self:
        """With one more attempt: this process's."""
        return replace(self, attempts=(*self.attempts, Attempt.begin()))

    def ended(self, why: str) -> Self:
        """With the end of the last attempt."""
        *earlier, last = self.attempts
        return replace(self, attempts=(*earlier, replace(last, ended=why)))

    def after(self, epoch: Epoch) -> Self:
        """With an epoch, in place of those from its number on: they are being done again."""
        kept = tuple(done for done in self.epochs if done.number < epoch.number)
        return replace(self, epochs=(*kept, epoch))

    @property
    def metrics(self) -> Mapping[str, float]:
        """The last validation accuracies, by path id."""
        return next((e.metrics for e in reversed(self.epochs) if e.metrics), {})


def read_json(file: Path) -> Any:
    """What a JSON file holds; None if there is none, or it can't be read."""
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError):
        return None
