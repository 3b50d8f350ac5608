"""Published weights by name: where they come from, their checksums, and where they are kept."""

import hashlib
import os
import secrets
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path

import yaml

from paretopath.errors import CheckpointError, nearest

FOLDER_VARIABLE = "PARETOPATH_CHECKPOINTS"
_TIMEOUT_S = 60

FEWEST_DIGITS = 8
"""Of a checksum: what PyTorch's own convention for names of files holds (``NAME-436d03e8.pth``)."""


@dataclass(frozen=True)
class KnownCheckpoint:
    """One published file of weights.

    Attributes:
        description: what it is.
        file: its name in the folder of checkpoints.
        urls: where it can be had, tried in order; all give the same bytes.
        size_bytes: its size; None where those who published it don't say.
        sha256: its checksum: 64 hexadecimal digits, or as many of the first as were published, at
            least 8.
        licence: its licence's name.
        source: the page of those who published it.
        paper: the page of its paper.
    """

    description: str
    file: str
    urls: tuple[str, ...]
    size_bytes: int | None
    sha256: str
    licence: str
    source: str
    paper: str

    def fetch(self, folder: Path | None = None) -> Path:
        """The local file, downloaded if it is not there.

        Args:
            folder: where it is kept; :func:`checkpoint_folder` by default.

        Raises:
            CheckpointError: it can't be downloaded, or its checksum is another.
        """
        folder = folder or checkpoint_folder()
        target = folder / self.file
        if target.is_file():
            self._check(target, str(target))
            return target
        folder.mkdir(parents=True, exist_ok=True)
        failures = []
        for url in self.urls:
            partial = folder / f".{self.file}.{secrets.token_hex(4)}.tmp"
            try:
                _download(url, partial)
                self._check(partial, url)
                partial.replace(target)
                return target
            except (OSError, CheckpointError) as error:
                failures.append(f"{url}: {error}")
            finally:
                partial.unlink(missing_ok=True)
        raise CheckpointError(
            f"weights {self.file} can't be downloaded; put the file into {folder} by hand. "
            + "; ".join(failures)
        )

    def _check(self, file: Path, origin: str) -> None:
        with file.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        if len(self.sha256) < FEWEST_DIGITS or not digest.startswith(self.sha256):
            wanted = f" of {self.size_bytes}" if self.size_bytes else ""
            raise CheckpointError(
                f"{origin} must have the SHA-256 {self._shown}, but has {digest} "
                f"({file.stat().st_size}{wanted} bytes)"
            )

    @property
    def _shown(self) -> str:
        """The checksum for people: that more digits follow is seen."""
        return self.sha256 if len(self.sha256) == 64 else f"{self.sha256}…"


def known_checkpoints() -> dict[str, KnownCheckpoint]:
    """All checkpoints that a recipe can name: those of ``checkpoints/known.yaml``."""
    entries = yaml.safe_load(_list_file().read_text(encoding="utf-8"))
    return {
        name: KnownCheckpoint(**{**entry, "urls": tuple(entry["urls"])})
        for name, entry in entries.items()
    }


def fetch_checkpoint(name: str) -> Path:
    """The local file of a known checkpoint, downloaded if it is not there.

    Raises:
        CheckpointError: no such name, or the download fails or has another checksum.
    """
    known = known_checkpoints()
    if name not in known:
        raise CheckpointError(f"there is no known checkpoint {name!r}; {nearest(name, known)}")
    return known[name].fetch()


def fetch_file(origin: str, *, sha256: str | None = None) -> Path:
    """A local file as it is, or one behind a URL, downloaded once and checked.

    Args:
        origin: a file's path, or a URL.
        sha256: 64 hexadecimal digits; a URL needs it, a local file is checked if it is given.

    Raises:
        CheckpointError: the file is absent, can't be downloaded, or has another checksum.
    """
    name = origin.rsplit("/", 1)[-1]
    if "://" in origin:
        if sha256 is None:
            raise CheckpointError(f"a download needs its SHA-256, but {origin} has none")
        # the checksum in the name keeps files of equal names apart
        file = f"{sha256[:12]}-{name}"
        return KnownCheckpoint(name, file, (origin,), 0, sha256, "", origin, "").fetch()
    if not Path(origin).is_file():
        raise CheckpointError(f"there is no file {origin}")
    if sha256 is not None:
        KnownCheckpoint(name, name, (), 0, sha256, "", "", "")._check(Path(origin), origin)
    return Path(origin)


def checkpoint_folder() -> Path:
    """Where downloaded weights are kept.

    ``$PARETOPATH_CHECKPOINTS``; else ``checkpoints/`` of a checkout; else the user's cache.
    """
    chosen = os.environ.get(FOLDER_VARIABLE)
    if chosen:
        return Path(chosen)
    checkout = _list_file().parent
    if checkout.name == "checkpoints":
        return checkout
    return Path.home() / ".cache" / "paretopath" / "checkpoints"


def _list_file() -> Path:
    """``known.yaml``: of the checkout, or the copy that a wheel carries."""
    package = Path(__file__).resolve().parent
    installed = package / "known_checkpoints.yaml"
    return installed if installed.is_file() else package.parents[2] / "checkpoints" / "known.yaml"


def _download(url: str, file: Path) -> None:
    with urllib.request.urlopen(url, timeout=_TIMEOUT_S) as source, file.open("xb") as target:
        shutil.copyfileobj(source, target)
