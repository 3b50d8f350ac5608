"""Files that are either whole or absent: what every artefact of a run directory is written with."""

import os
import secrets
from pathlib import Path


def write_atomically(path: str | os.PathLike[str], content: str | bytes) -> None:
    """Writes a file so that a reader, or a crash at any moment, sees the old file or the new.

    The content goes to a hidden file in the same folder, is flushed to the disk, and takes the
    final name in one rename. Missing folders are made. A symbolic link is followed, not replaced.

    Args:
        path: the file's final name.
        content: text is written as UTF-8, with its line ends as they are.

    Raises:
        OSError: the folder can't be written or the disk is full; the old file is untouched.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    data = content.encode() if isinstance(content, str) else content
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
