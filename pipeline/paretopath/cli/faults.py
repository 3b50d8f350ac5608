"""How a command ends that could not do its work: one sentence, an exit status, no traceback.

Only what no rule foresaw leaves its traceback in a log file. ``PARETOPATH_DEBUG=1`` shows
tracebacks on standard error, of users' mistakes too.
"""

import errno
import os
import platform
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path

from paretopath.errors import ParetopathError
from paretopath.files import write_atomically

DEBUG = "PARETOPATH_DEBUG"
INTERRUPTED, BROKEN_PIPE = 130, 141  # as shells count: 128 + the signal's number

LOG_FOLDER: ContextVar[Path | None] = ContextVar("LOG_FOLDER", default=None)
"""The run directory that the command is about, where logs of failures go."""

_IN_PLACE = "it stands where a folder must be"
_REFUSED = {
    errno.EACCES: "the right to it is missing (permission denied)",
    errno.EPERM: "the right to it is missing (operation not permitted)",
    errno.EROFS: "its file system is read-only",
    errno.EISDIR: "it is a folder, where a file must be",
    errno.EEXIST: _IN_PLACE,
    errno.ENOTDIR: _IN_PLACE,
    errno.ENAMETOOLONG: "its name is too long",
    errno.EIO: "the disk reports an error",
    errno.EMFILE: "too many files are open",
    errno.ENFILE: "too many files are open",
    errno.ENXIO: "nothing is behind it",
}
_FULL = {
    errno.ENOSPC: "no space is left on its disk",
    errno.EDQUOT: "the quota of its disk is used up",
    errno.EFBIG: "a file may not be so large here",
}


def run(command: Callable[[], object]) -> int:
    """Runs a command to its end, whatever that is.

    Args:
        command: returns an exit status, or None for 0.

    Returns:
        The exit status: 2 where the command failed, 130 after Ctrl-C, 141 where nobody reads its
        output any more (``| head``).
    """
    try:
        status = command()
        sys.stdout.flush()
    except KeyboardInterrupt:
        status = INTERRUPTED
    except BrokenPipeError:
        return _unread()
    except SystemExit as error:
        if isinstance(error.__context__, BrokenPipeError):
            return _unread()
        raise
    except Exception as error:
        if os.environ.get(DEBUG, "0") not in ("", "0"):
            traceback.print_exc()
        if not _show_help(error):
            print(f"paretopath: {sentence(error)}", file=sys.stderr)
        return 2
    if status == INTERRUPTED:
        print("paretopath: interrupted; the same command goes on from here", file=sys.stderr)
    return status if isinstance(status, int) else 0


def sentence(error: Exception) -> str:
    """What a person is told; for what no rule foresaw, the traceback goes to a log file."""
    if isinstance(error, ParetopathError):
        return str(error)
    if hasattr(error, "format_message"):  # typer's, about what was typed
        return _typed(error)
    refusal = next((e for e in _causes(error) if isinstance(e, OSError)), None)
    if refusal is not None and refusal.errno in _FULL:
        place = refusal.filename or LOG_FOLDER.get() or Path.cwd()
        return (
            f"{place} can't be written: {_FULL[refusal.errno]}; what was there is kept, "
            f"and the same command goes on once there is room"
        )
    if refusal is not None and refusal.errno in _REFUSED and refusal.filename:
        place = Path(os.fsdecode(refusal.filename))
        if refusal.errno == errno.ENOTDIR:  # the system names what lies below it
            place = next((part for part in place.parents if part.is_file()), place)
        return f"{place} can't be used: {_REFUSED[refusal.errno]}"
    what = " ".join(f"{type(error).__name__}: {error}".split())
    what = what if len(what) <= 300 else what[:299] + "…"
    return f"this was not foreseen: {what}; the details are in {_save_log(error)}"


def _causes(error: BaseException) -> list[BaseException]:
    """An error, and what it was raised from."""
    found: list[BaseException] = []
    while error not in found:
        found.append(error)
        if error.__cause__ is None:
            break
        error = error.__cause__
    return found


def _typed(error: Exception) -> str:
    message = str(error.format_message()).strip().rstrip(".")  # type: ignore[attr-defined]
    context = getattr(error, "ctx", None)
    return f"{message}; see {context.command_path} --help" if context else message


def _show_help(error: Exception) -> bool:
    if type(error).__name__ != "NoArgsIsHelpError":
        return False
    error.show()  # type: ignore[attr-defined]
    return True


def _unread() -> int:
    """Nobody reads standard output: what is left in its buffer goes nowhere, without a word."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    return BROKEN_PIPE


def _save_log(error: BaseException) -> Path:
    name = f"failure-{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}.log"
    text = "\n".join(
        [
            " ".join(sys.argv),
            f"paretopath {version('paretopath')}, torch {version('torch')}, "
            f"Python {platform.python_version()}, {platform.platform()}",
            "",
            "".join(traceback.format_exception(error)),
        ]
    )
    folder = LOG_FOLDER.get()
    for place in (folder, Path(tempfile.gettempdir()) / f"paretopath-{os.getuid()}"):
        try:
            if place is not None and (place.is_dir() or place != folder):
                write_atomically(place / name, text)
                return place / name
        except OSError:
            continue  # the next place
    return Path(os.devnull)
