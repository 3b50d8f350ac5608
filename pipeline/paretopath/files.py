"""Files that are either whole or absent: what every artefact of a run directory is written with."""

import errno
import hashlib
import json
import os
import re
import secrets
import stat
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

CHECKSUM = "sha256"

_DESCRIPTOR = re.compile(r"/dev/(?:fd/(\d+)|(stdin|stdout|stderr))|/proc/self/fd/(\d+)")


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file so that a reader, or a crash at any moment, sees the old file or the new.

    The content goes to a hidden file in the same folder, is flushed to the disk, and takes the
    final name in one rename. Missing folders are made. A symbolic link is followed, not replaced.
    What is no ordinary file (a pipe, a device, the program's own output) is written into.

    Args:
        path: the file's final name.
        content: text is written as UTF-8, with its line ends as they are.

    Raises:
        OSError: the folder can't be written or the disk is full; it names ``path``, and the old
            file is untouched.
    """
    data = content.encode() if isinstance(content, str) else content
    try:
        if is_special(path):
            _write_into(path, data)
        else:
            _replace(Path(os.path.realpath(path)), data)
    except OSError as error:
        # the temporary file's name says nothing to a person
        named = error.filename is not None and ".tmp" not in str(error.filename)
        raise OSError(
            error.errno, error.strerror, str(error.filename if named else path)
        ) from error


def is_special(path: str | os.PathLike[str]) -> bool:
    """Whether there is something other than a file of its own: a pipe, a device, a descriptor."""
    if _DESCRIPTOR.fullmatch(os.fspath(path)):
        return True
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def require_file_place(path: str | os.PathLike[str]) -> None:
    """Refuses a name at which no file can be written, before anything long is done for it.

    Raises:
        OSError: it is a folder, a file stands where its folder must be, or rights are missing.
    """
    target = Path(path)
    if is_special(target):
        return
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, "Is a directory", str(path))
    parent = Path(os.path.realpath(target)).parent
    while not parent.exists():
        parent = parent.parent
    if not parent.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "Not a directory", str(parent))
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "Permission denied", str(parent))


def require_writable(folder: str | os.PathLike[str]) -> None:
    """Tries to write a file into a folder that exists, and removes it.

    Raises:
        OSError: of the file system: read-only, full, without the right.
    """
    probe = Path(folder) / f".{os.getpid()}-{secrets.token_hex(4)}.tmp"
    try:
        with open(probe, "xb") as file:
            file.write(b"\n")
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(folder)) from error
    finally:
        probe.unlink(missing_ok=True)


def _write_into(path: str | os.PathLike[str], data: bytes) -> None:
    match = _DESCRIPTOR.fullmatch(os.fspath(path))
    if match is None:
        with open(path, "wb") as file:
            file.write(data)
        return
    # through the descriptor itself: opened anew, a file that the shell opened would be begun anew
    number = match[1] or match[3] or {"stdin": 0, "stdout": 1, "stderr": 2}[match[2]]
    sys.stdout.flush()
    with os.fdopen(os.dup(int(number)), "wb") as file:
        file.write(data)


def _replace(target: Path, data: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    # opened by name, not by mkstemp, so that the file gets the rights that the user's umask gives
    temporary = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
    try:
        with open(temporary, "xb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _flush_folder(target.parent)


def _flush_folder(folder: Path) -> None:
    """Makes a rename survive a power cut; a no-op where folders can't be opened (Windows)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """The content of a JSON file with a checksum, by which :func:`is_altered` knows it."""
    return {**content, CHECKSUM: _digest(content)}


def is_altered(content: Any) -> bool:
    """Whether the content of a JSON file is not what was sealed; False if it never was."""
    if not isinstance(content, Mapping) or CHECKSUM not in content:
        return False
    return bool(content[CHECKSUM] != _digest(content))


def _digest(content: Mapping[str, Any]) -> str:
    plain = json.loads(json.dumps({k: v for k, v in content.items() if k != CHECKSUM}))
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
