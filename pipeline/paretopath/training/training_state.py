"""Checkpoints in the middle of a training: whole or absent, two kept, a broken one refused.

Each ``STEP.ckpt`` has a ``STEP.ckpt.json`` beside it that says where the training was, with which
versions, and the file's SHA-256.
"""

import io
import json
import logging
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from paretopath.errors import CheckpointError
from paretopath.files import write_atomically
from paretopath.weights.files import sha256

KEPT = 2  # the last, and the one before it

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainingPoint:
    """Where a checkpoint was taken.

    Attributes:
        epoch: finished epochs.
        batch: batches of the next epoch that are done; 0 between epochs.
        step: optimizer steps.
    """

    epoch: int
    batch: int
    step: int


@dataclass(frozen=True)
class TrainingCheckpoint:
    """A checkpoint on disk that was checked.

    Attributes:
        file: Lightning's.
        point: where the training was.
    """

    file: Path
    point: TrainingPoint


def checkpoint_file(folder: Path, step: int) -> Path:
    """The checkpoint of a training after a number of optimizer steps."""
    return folder / f"{step:09d}.ckpt"


def save_checkpoint(file: Path, checkpoint: Mapping[str, Any], point: TrainingPoint) -> None:
    """Writes a checkpoint, then removes those beside it before the last two.

    Args:
        file: of :func:`checkpoint_file`.
        checkpoint: Lightning's; tensors and plain values.
        point: where the training is.
    """
    folder = file.parent
    folder.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            # first into memory: where a disk is full, torch's own writer does not say so
            content = io.BytesIO()
            torch.save(checkpoint, content)
            stream.write(content.getbuffer())
            stream.flush()
            os.fsync(stream.fileno())
        about = {
            "sha256": sha256(temporary),
            **asdict(point),
            "torch": str(torch.__version__),
            "pytorch-lightning": version("pytorch-lightning"),
        }
        # the description first: a checkpoint without one can't be told from a broken one
        write_atomically(_description(file), json.dumps(about) + "\n")
        os.replace(temporary, file)
    finally:
        temporary.unlink(missing_ok=True)
    for older in sorted(folder.glob("*.ckpt"))[:-KEPT]:
        older.unlink(missing_ok=True)
        _description(older).unlink(missing_ok=True)


def last_checkpoint(folder: Path) -> TrainingCheckpoint | None:
    """The newest checkpoint that is whole; one that is not is refused by name, with a warning.

    None where there is none: the training begins anew.
    """
    for file in sorted(folder.glob("*.ckpt"), reverse=True):
        try:
            return TrainingCheckpoint(file, check(file))
        except CheckpointError as error:
            _log.warning("%s; the one before it is used", error)
    return None


def check(file: Path) -> TrainingPoint:
    """Where a checkpoint was taken, if it is what was written then.

    Raises:
        CheckpointError: truncated, altered, or without its description.
    """
    try:
        about = json.loads(_description(file).read_text())
        expected, point = about["sha256"], TrainingPoint(*(about[n] for n in _POINT))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file} is refused: {_description(file).name} beside it does not describe it"
        ) from error
    if sha256(file) != expected:
        raise CheckpointError(
            f"{file} is refused: it was truncated or altered, its SHA-256 is not the one in "
            f"{_description(file).name}"
        )
    return point


_POINT = ("epoch", "batch", "step")


def _description(file: Path) -> Path:
    return file.with_name(file.name + ".json")
