"""Which W&B run is which: ids in the run directory, so that a resumed job goes on with its own."""

import json
import re
import secrets
import string
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from paretopath.files import write_atomically

FOLDER = "tracking"
"""The folder of a run directory that holds them."""

_ALPHABET = string.ascii_lowercase + string.digits


@dataclass(frozen=True)
class Identity:
    """A W&B run.

    Attributes:
        id: W&B's id.
        next_step: the first step of the history that was not logged yet.
    """

    id: str
    next_step: int = 0

    def advanced(self, step: int) -> "Identity":
        """The same run after a step was logged."""
        return replace(self, next_step=step + 1)


def load_identity(run_dir: Path, run: str) -> Identity:
    """The identity of a run by its name; a new one, kept at once, if it has none.

    Raises:
        OSError: the file can't be read or written.
        ValueError: it holds something else.
    """
    file = _file(run_dir, run)
    if file.exists():
        found = json.loads(file.read_text())
        return Identity(id=str(found["id"]), next_step=int(found["next_step"]))
    made = Identity("".join(secrets.choice(_ALPHABET) for _ in range(10)))
    save_identity(run_dir, run, made)
    return made


def save_identity(run_dir: Path, run: str, identity: Identity) -> None:
    """Keeps an identity."""
    write_atomically(_file(run_dir, run), json.dumps(asdict(identity)) + "\n")


def forget_run(run_dir: Path, run: str) -> None:
    """Forgets the identity of a run: the next of that name is another W&B run."""
    _file(run_dir, run).unlink(missing_ok=True)


def _file(run_dir: Path, run: str) -> Path:
    return run_dir / FOLDER / (re.sub(r"[^\w.-]", "-", run) + ".json")
