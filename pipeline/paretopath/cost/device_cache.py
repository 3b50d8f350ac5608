"""What was measured of units, kept on disk: one file for each device and way to use it."""

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paretopath.errors import RunDirectoryError
from paretopath.files import write_atomically

SCHEMA = 1
"""The version of the cache's files that this code writes, and the only one that it reads."""


@dataclass(frozen=True)
class UnitMeasurement:
    """What one form of a unit takes on the device.

    Attributes:
        unit: the unit that showed it first.
        latency_ms: milliseconds for a batch, median.
        spread_ms: their interquartile range.
        runs: how many runs count.
        interrupted: the share of runs that were left out, see
            :class:`~paretopath.cost.stopwatch.Timing`.
        energy_mj: millijoules for a batch; None where the device does not report energy.
    """

    unit: str
    latency_ms: float
    spread_ms: float
    runs: int
    interrupted: float
    energy_mj: float | None = None


class MeasurementCache:
    """One setup's results in a JSON file.

    Several processes may add to it at a time; at worst one's entry is lost and measured again.

    Args:
        root: the folder of all setups' files.
        described: the setup; its digest is in the file's name.
    """

    def __init__(self, root: Path, described: Mapping[str, Any]) -> None:
        self.described = dict(described)
        digest = hashlib.sha256(json.dumps(self.described, sort_keys=True).encode()).hexdigest()
        slug = re.sub(r"[^a-z0-9]+", "-", str(described["name"]).lower()).strip("-")
        self.file = root / f"{slug}-{digest[:12]}.json"

    def load(self) -> dict[str, UnitMeasurement]:
        """All results by signature; none if there is no file.

        Raises:
            RunDirectoryError: the file is not what this code writes.
        """
        try:
            content = json.loads(self.file.read_text(encoding="utf-8"))
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise RunDirectoryError(
                f"the measurements {self.file} are not valid JSON: {error}"
            ) from None
        try:
            if content["schema"] != SCHEMA:
                return {}  # another version's: measured anew
            return {key: UnitMeasurement(**entry) for key, entry in content["entries"].items()}
        except (KeyError, TypeError) as error:
            raise RunDirectoryError(
                f"the measurements {self.file} lack a field or have one too many: {error}"
            ) from None

    def add(self, entries: Mapping[str, UnitMeasurement]) -> None:
        """Adds results to what the file holds by now."""
        everything = self.load() | dict(entries)
        content = {
            "schema": SCHEMA,
            "setup": self.described,
            "entries": {key: vars(entry) for key, entry in sorted(everything.items())},
        }
        write_atomically(self.file, json.dumps(content, indent=1, allow_nan=False) + "\n")
