"""A cost table's rows in a file, so that each form of a unit is traced and priced once for all the
processes that search a run.
"""

import hashlib
import io
import json
import zipfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from paretopath.cost.table import CostTable
from paretopath.files import write_atomically

_DESCRIBED = "described"
_TOLERANCE = 1e-9


def save_table(table: CostTable, file: Path) -> None:
    """Writes the rows that a table has."""
    arrays: dict[str, Any] = {_DESCRIBED: np.array(_digest(table))}
    for name, (keys, costs) in table.rows().items():
        arrays[f"{name}/keys"] = keys
        arrays[f"{name}/costs"] = costs
    content = io.BytesIO()
    np.savez(content, allow_pickle=False, **arrays)
    write_atomically(file, content.getvalue())


def load_table(table: CostTable, file: Path) -> bool:
    """Adds the rows of a file to a table.

    The full path is priced to see whether the file's rows still hold.

    Returns:
        Whether they were added: not if there is no such file, it can't be read, or it is of another
        space, hardware or version.
    """
    try:
        with np.load(file, allow_pickle=False) as found:
            if str(found[_DESCRIBED]) != _digest(table):
                return False
            names = [key.removesuffix("/keys") for key in found if key.endswith("/keys")]
            rows = {name: (found[f"{name}/keys"], found[f"{name}/costs"]) for name in names}
        table([table.space.full])
        for name, (keys, costs) in table.rows().items():
            kept = dict(zip(rows[name][0].tolist(), rows[name][1], strict=True))
            for key, cost in zip(keys.tolist(), costs, strict=True):
                if not np.allclose(kept[key], cost, rtol=_TOLERANCE, atol=0, equal_nan=True):
                    return False
        table.add_rows(rows)
    except (OSError, ValueError, LookupError, EOFError, zipfile.BadZipFile):
        return False
    return True


def _digest(table: CostTable) -> str:
    space = table.space
    described = {
        "paretopath": version("paretopath"),
        "hardware": table.cost_model.hardware,
        "decisions": [[decision.name, list(decision.values)] for decision in space.decisions],
        "input_shape": list(space.input_shape),
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
