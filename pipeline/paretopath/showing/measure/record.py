"""What devices took for the paths of a run, kept in one file."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from paretopath.errors import RunDirectoryError
from paretopath.files import write_atomically
from paretopath.showing.breakdown import Measured
from paretopath.showing.measure.measurement import Measurement

SCHEMA = 1
"""The version of the file that this code writes, and the only one that it reads."""


def save_measurements(file: Path, hardware: str, measurements: Sequence[Measurement]) -> None:
    """Adds measurements to a file, each in place of an older one of the same path, device and
    batch size.

    Raises:
        RunDirectoryError: the file holds something else.
    """
    kept = {(one.path_id, one.hardware, one.batch_size): one for one in _load(file)}
    for m in measurements:
        kept.pop((m.path_id, hardware, m.batch_size), None)
        kept[m.path_id, hardware, m.batch_size] = Measured(
            m.path_id, hardware, m.batch_size, m.latency_ms, m.energy_mj
        )
    content = {"schema": SCHEMA, "measured": [asdict(one) for one in kept.values()]}
    write_atomically(file, json.dumps(content, indent=1, allow_nan=False) + "\n")


def load_measured(file: Path) -> dict[str, Measured]:
    """Paths as they were measured last, by their ids: all on the same device and in batches of
    the same size, so that they compare. Empty if there is no file.

    Raises:
        RunDirectoryError: the file holds something else.
    """
    found = _load(file)
    return {
        one.path_id: one
        for one in found
        if (one.hardware, one.batch_size) == (found[-1].hardware, found[-1].batch_size)
    }


def _load(file: Path) -> list[Measured]:
    """All measurements, the latest last."""
    if not file.is_file():
        return []
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if content["schema"] != SCHEMA:
            raise ValueError(f"schema {content['schema']}, not {SCHEMA}")
        return [Measured(**one) for one in content["measured"]]
    except (ValueError, KeyError, TypeError) as error:
        raise RunDirectoryError(
            f"{file} must hold what `paretopath measure` wrote, but can't be read: {error}"
        ) from error
