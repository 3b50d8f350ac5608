"""Reads a run that W&B wrote offline: LevelDB's log framing around wandb's own protobuf records.

wandb 0.31 no longer ships a reader of its own. The framing is described in LevelDB's
``doc/log_format.md``; W&B puts seven bytes of its own in front and takes zlib's CRC32.
"""

import json
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

_BLOCK = 32768
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def read_records(file: Path) -> Iterator[Any]:
    """The records of a ``.wandb`` file; a last one that was cut short is left out."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = file.read_bytes()
    assert data[:4] == b":W&B"
    position, parts = 7, b""
    while position + 7 <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < 7:
            position += left
            continue
        checksum, length, kind = struct.unpack("<IHB", data[position : position + 7])
        chunk = data[position + 7 : position + 7 + length]
        position += 7 + length
        if len(chunk) < length:
            return
        assert zlib.crc32(chunk, zlib.crc32(bytes([kind]))) == checksum
        parts = chunk if kind in (_FULL, _FIRST) else parts + chunk
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record


@dataclass
class WandbRun:
    """What W&B would show of a run.

    Attributes:
        folder: of the run's files.
        id, group, job_type, name, tags: as W&B has them.
        config: nested, as logged.
        history: a dictionary a row.
        summary: the last values.
        artifacts: file names by artifact name and type.
        exit_code: None if the run has no end.
    """

    folder: Path
    id: str = ""
    group: str = ""
    job_type: str = ""
    name: str = ""
    tags: tuple[str, ...] = ()
    config: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    artifacts: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    exit_code: int | None = None

    def table(self, key: str) -> tuple[list[str], list[list[Any]]]:
        """Columns and rows of a table in the history."""
        content = json.loads((self.folder / "files" / self.logged(key)["path"]).read_text())
        return content["columns"], content["data"]

    def logged(self, key: str) -> Any:
        """The last value of a key in the history."""
        return next(row[key] for row in reversed(self.history) if key in row)


def read_run(file: Path) -> WandbRun:
    """A run out of its file."""
    run = WandbRun(file.parent)
    for record in read_records(file):
        kind = record.WhichOneof("record_type")
        if kind == "run":
            run.id, run.group, run.job_type = (
                record.run.run_id,
                record.run.run_group,
                record.run.job_type,
            )
            run.name, run.tags = record.run.display_name, tuple(record.run.tags)
            _update(run.config, record.run.config.update)
        elif kind == "config":
            _update(run.config, record.config.update)
        elif kind == "history":
            row: dict[str, Any] = {}
            _update(row, record.history.item)
            run.history.append(row)
        elif kind == "summary":
            _update(run.summary, record.summary.update)
        elif kind == "artifact":
            names = [entry.path for entry in record.artifact.manifest.contents]
            run.artifacts[record.artifact.name, record.artifact.type] = names
        elif kind == "exit":
            run.exit_code = record.exit.exit_code
    return run


def read_runs(run_dir: Path) -> list[WandbRun]:
    """All offline runs of a run directory, oldest first."""
    return [read_run(file) for file in sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))]


def _update(target: dict[str, Any], items: Any) -> None:
    for item in items:
        *parents, last = list(item.nested_key) or [item.key]
        place = target
        for parent in parents:
            if not isinstance(place.get(parent), dict):
                place[parent] = {}
            place = place[parent]
        place[last] = json.loads(item.value_json)
