"""A cost table's rows in a file, so that each form of a unit is traced and priced once for all the
processes that search a run.
"""

import hashlib
import io
import json
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from paretopath.cost.forms import UnitForms
from paretopath.cost.table import CostTable
from paretopath.costs import COST_NAMES
from paretopath.files import write_atomically

_DESCRIBED = "described"
_TOLERANCE = 1e-9


def save_table(table: CostTable, file: Path) -> None:
    """Writes the rows that a table has."""
    arrays: dict[str, Any] = {_DESCRIBED: np.array(_digest(table))}
    for name, forms in table.forms().items():
        arrays |= {f"{name}/{part}": values for part, values in vars(forms).items()}
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
            names = [key.removesuffix("/choices") for key in found if key.endswith("/choices")]
            parts = [part.name for part in fields(UnitForms)]
            forms = {n: UnitForms(*(found[f"{n}/{part}"] for part in parts)) for n in names}
    except Exception:  # a damaged archive raises anything; all mean: price anew
        return False
    try:
        table([table.space.full])
        if not all(_agree(here, forms[name]) for name, here in table.forms().items()):
            return False
        table.add_forms(forms)
    except (ValueError, LookupError):
        return False
    return True


def _agree(here: UnitForms, kept: UnitForms) -> bool:
    """Whether what is kept of a unit's forms is what they cost here."""
    rows = {key: i for i, key in enumerate(_keys(kept))}
    same = [rows[key] for key in _keys(here)]
    if not np.array_equal(kept.left[same], here.left):
        return False
    return np.allclose(kept.costs[same], here.costs, rtol=_TOLERANCE, atol=0, equal_nan=True)


def _keys(forms: UnitForms) -> list[tuple[int, str]]:
    return list(zip(forms.choices.tolist(), forms.reached.tolist(), strict=True))


def _digest(table: CostTable) -> str:
    space = table.space
    described = {
        "paretopath": version("paretopath"),
        "hardware": table.cost_model.hardware,
        "decisions": [[decision.name, list(decision.values)] for decision in space.decisions],
        "input_shape": list(space.input_shape),
        "costs": COST_NAMES,
    }
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()
