"""What W&B has on disk of an offline run: rows that were logged, but not written, are not there.

An offline run is LevelDB's log framing (its ``doc/log_format.md``) around wandb's own protobuf
records; wandb 0.31 ships no reader.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_BLOCK = 32768
_HEADER = 7  # of the file, and of each chunk: checksum, length, kind
_FULL, _FIRST, _LAST = 1, 2, 4


def next_offline_step(run_dir: Path, run_id: str) -> int | None:
    """The first step of a run's history that no offline file of it holds; None if there is none.

    Args:
        run_dir: the run directory.
        run_id: W&B's.
    """
    steps = [
        int(record.history.step.num)
        for file in run_dir.glob(f"wandb/offline-run-*-{run_id}/*.wandb")
        for record in _records(file)
        if record.WhichOneof("record_type") == "history"
    ]
    return max(steps) + 1 if steps else None


def unsynced_runs(run_dir: Path) -> list[Path]:
    """The folders of offline runs that ``wandb sync`` has not uploaded: it leaves a mark."""
    files = sorted(run_dir.glob("wandb/offline-run-*/*.wandb"))
    return [file.parent for file in files if not Path(f"{file}.synced").exists()]


def _records(file: Path) -> Iterator[Any]:
    """The records of a file; the last one may have been cut short when its writer was killed."""
    from wandb.proto.wandb_internal_pb2 import Record

    data = file.read_bytes()
    position, parts = _HEADER, b""
    while position + _HEADER <= len(data):
        left = _BLOCK - position % _BLOCK
        if left < _HEADER:
            position += left
            continue
        _, length, kind = struct.unpack("<IHB", data[position : position + _HEADER])
        chunk = data[position + _HEADER : position + _HEADER + length]
        position += _HEADER + length
        if len(chunk) < length or kind == 0:
            return
        parts = chunk if kind in (_FULL, _FIRST) else parts + chunk
        if kind in (_FULL, _LAST):
            record = Record()
            record.ParseFromString(parts)
            yield record
