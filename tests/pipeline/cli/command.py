"""The command in this process; a fresh one takes seconds to import."""

from pathlib import Path

from paretopath.cli import faults
from paretopath.cli.app import app


def run_here(*arguments: str | Path) -> int:
    """Runs a command to its end; its exit status."""
    return faults.run(lambda: app([str(a) for a in arguments], standalone_mode=False))
