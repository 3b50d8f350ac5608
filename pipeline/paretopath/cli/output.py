"""Where output goes: results to standard output, everything else to standard error."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.console import Console

if TYPE_CHECKING:
    from paretopath.run import Run
    from paretopath.showing.tracking import Tracking


def consoles() -> tuple[Console, Console]:
    """Standard output for results, standard error for everything else."""
    width = None if sys.stdout.isatty() else 200
    return Console(file=sys.stdout, width=width), Console(file=sys.stderr)


def print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps Lightning's and torch's hints off the screen; their errors still come."""
    import logging
    import warnings

    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning.utilities.rank_zero", "optuna")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_)?lightning.*")
        warnings.filterwarnings("ignore", module=r"torch\..*")
        warnings.filterwarnings("ignore", module=r"optuna.*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def tracking(run: "Run") -> Iterator["Tracking"]:
    """Shows a run in W&B, as its recipe says; what that has to say comes last."""
    from paretopath.showing.tracking import open_tracking

    with open_tracking(run.directory, run.recipe.tracking) as opened:
        yield opened
    for note in opened.notes:
        consoles()[1].print(note, highlight=False, soft_wrap=True)
