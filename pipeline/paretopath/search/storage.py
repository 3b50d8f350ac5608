"""Where a study is kept: an Optuna journal that takes a generation in one write and survives kill
-9, or a database.

Optuna's own journal file writes and flushes one line for each parameter, attribute and state. Here
the lines of a batch go to the file together, in one write and one flush to the disk. The file stays
an ordinary Optuna journal: ``optuna.load_study`` and optuna-dashboard read it with
``JournalFileBackend``.
"""

import fcntl
import json
import os
import secrets
import socket
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.storages.journal import BaseJournalBackend

from paretopath.errors import RunDirectoryError
from paretopath.files import write_atomically
from paretopath.recipe.storage_url import check_url
from paretopath.search.databases import absolute, open_database, shown

JOURNAL = "study.journal"
PLACE = "study.json"  # names database and study, where there is no journal
STUDY_NAME = "paretopath"  # in the journal
_held: set[Path] = set()  # locks of this process
_BLOCK = 4096  # bytes read at once while looking for the last line's start


class Journal(BaseJournalBackend):
    """An Optuna journal file with batches. One per thread; any number of processes.

    A write that a dying process left unfinished is a last line without its end: it is read as
    absent, and cut off by the next writer. Writers exclude each other by ``flock`` on a file beside
    the journal, which the system releases when its holder dies.

    Args:
        path: the journal's file; made when first written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        self._offsets = [0]  # where each committed line starts, and where the last one ends
        self._pending: list[bytes] | None = None  # the open batch

    def read_logs(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        """The logs from a number on: those in the file, then those of the open batch."""
        yield from self._committed(log_number_from)
        skipped = max(log_number_from - (len(self._offsets) - 1), 0)
        for pending in (self._pending or [])[skipped:]:
            yield json.loads(pending)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Adds logs to the open batch; without one, writes them at once."""
        lines = [json.dumps(log, separators=(",", ":")).encode() + b"\n" for log in logs]
        if self._pending is not None:
            self._pending.extend(lines)
        else:
            with self._locked() as file:
                _append(file, lines)

    @contextmanager
    def batch(self) -> Iterator[None]:
        """What is appended inside the block reaches the file together when it ends, however it
        ends.

        Other writers wait until then, so keep it short: no evaluation inside. A batch inside a
        batch is part of it.
        """
        if self._pending is not None:
            yield
            return
        with self._locked() as file:
            self._pending = []
            try:
                yield
            finally:
                lines, self._pending = self._pending, None
                _append(file, lines)

    @contextmanager
    def _locked(self) -> Iterator[FileIO]:
        """The open file, no other writer at it, without what a dead one left unfinished."""
        new = not self.path.exists()
        with open(self.path, "ab+", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            _cut_unfinished(file)
            yield file
        if new:
            _flush_folder(self.path.parent)

    def _committed(self, log_number_from: int) -> Iterator[dict[str, Any]]:
        first = min(log_number_from, len(self._offsets) - 1)
        if not self.path.exists() or self.path.stat().st_size == self._offsets[first]:
            return
        with open(self.path, "rb") as file:
            file.seek(self._offsets[first])
            for number, line in enumerate(file, start=first):
                if not line.endswith(b"\n"):
                    return  # an unfinished write
                if number == len(self._offsets) - 1:
                    self._offsets.append(self._offsets[number] + len(line))
                if number >= log_number_from:
                    try:
                        yield json.loads(line)
                    except ValueError:
                        raise RunDirectoryError(
                            f"{self.path}, line {number + 1}: not a line of an Optuna journal"
                        ) from None


@dataclass(frozen=True)
class StudyStorage:
    """An Optuna storage and how to write much to it at once.

    Attributes:
        optuna: any Optuna storage.
        journal: the batching journal under it, or None where the storage has its own transactions
            (databases).
        study: name of the study in it.
    """

    optuna: BaseStorage
    journal: Journal | None
    study: str

    def batch(self) -> AbstractContextManager[None]:
        """A block whose writes become durable together, where the storage can do that."""
        return self.journal.batch() if self.journal else nullcontext()

    def for_thread(self) -> "StudyStorage":
        """The same study for another thread: a journal is opened anew, a database is shared."""
        if self.journal is None:
            return self
        journal = Journal(self.journal.path)
        return StudyStorage(JournalStorage(journal), journal, self.study)


def open_storage(run_dir: str | os.PathLike[str], url: str | None = None) -> StudyStorage:
    """The storage of a run directory's study.

    Args:
        run_dir: holds the journal, or the file that names the study in a database; must exist.
        url: a database (:func:`~paretopath.search.databases.open_database`) to use in place of the
            journal. None: the one that the run directory names, or else the journal.

    Raises:
        RunDirectoryError: the run directory keeps its study elsewhere.
        StorageError: the database can't be reached.
        MissingExtraError: its driver is not installed.
    """
    folder = Path(run_dir)
    place = _place(folder, url)
    if place is not None:
        return StudyStorage(open_database(place["storage"]), None, place["study"])
    journal = Journal(folder / JOURNAL)
    return StudyStorage(JournalStorage(journal), journal, STUDY_NAME)


def has_study(run_dir: str | os.PathLike[str]) -> bool:
    """Whether a search was started in a run directory."""
    return any((Path(run_dir) / name).exists() for name in (JOURNAL, PLACE))


def _place(folder: Path, url: str | None) -> dict[str, str] | None:
    """Which database and study a run directory names; None for its journal. Set by the first.

    Many runs share a database, so the study's name ends in random digits.
    """
    file = folder / PLACE
    url = None if url is None else absolute(url)
    if url is not None and not has_study(folder):
        check_url(url)
        study = f"{folder.absolute().name}-{secrets.token_hex(4)}"
        content = json.dumps({"storage": url, "study": study}, indent=1) + "\n"
        write_atomically(file, content)
    place: dict[str, str] | None = json.loads(file.read_text()) if file.is_file() else None
    kept = place["storage"] if place else None
    if url is not None and kept != url:
        raise RunDirectoryError(
            f"a search that is resumed must keep its storage, but {folder} has it in "
            f"{shown(kept) if kept else JOURNAL}, and now {shown(url)} is asked for"
        )
    return place


@contextmanager
def exclusive(run_dir: str | os.PathLike[str]) -> Iterator[None]:
    """Holds a run directory against a second search, until the block ends or the process dies.

    A block inside a block of the same process and directory is part of it.

    Raises:
        RunDirectoryError: another process holds it.
    """
    path = (Path(run_dir) / "search.lock").absolute()
    if path in _held:  # a record lock is the process's, and goes with the first file it closes
        yield
        return
    with open(path, "a+") as file:
        try:
            # a record lock, not flock: forked data-loading workers that outlive a killed search
            # must not keep it
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise RunDirectoryError(
                f"only one search at a time may run in {run_dir}, "
                f"but {file.read().strip()} is at it"
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        _held.add(path)
        try:
            yield
        finally:
            _held.discard(path)


def _append(file: FileIO, lines: list[bytes]) -> None:
    """Writes lines in one go and flushes them to the disk."""
    data = memoryview(b"".join(lines))
    if not data:
        return
    while data:
        data = data[file.write(data) :]
    os.fsync(file.fileno())


def _cut_unfinished(file: FileIO) -> None:
    """Removes a last line that has no end. The caller holds the lock, so its writer is dead."""
    end = keep = file.seek(0, os.SEEK_END)
    while keep > 0:
        start = max(keep - _BLOCK, 0)
        file.seek(start)
        keep = start + file.read(keep - start).rfind(b"\n") + 1
        if keep > start:
            break
    if keep < end:
        file.truncate(keep)


def _flush_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
