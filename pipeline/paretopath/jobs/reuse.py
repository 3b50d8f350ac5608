"""Base weights that another run has already: made from the same, they are the same."""

import glob
import hashlib
import json
import re
from pathlib import Path

from paretopath.errors import CheckpointError
from paretopath.files import write_atomically
from paretopath.run import Run
from paretopath.run.changes import ingredients
from paretopath.run.environment import code_version
from paretopath.weights.files import read_metadata, read_state, sha256

MADE_FROM = "made_from"  # in the metadata of base weights


def made_from(run: Run) -> str | None:
    """A hash of all that a run's base weights depend on; None where that can't be told.

    Besides sections of the recipe: the code, the kind of device, and the content of weights that
    the recipe names as files or folders. A data set is known by its name only, as it is within a
    run.
    """
    code = code_version()
    if code is None:
        return None
    named = run.recipe.weights
    origins = named.values() if isinstance(named, dict) else [named]
    content = {
        "recipe": ingredients(run.recipe),
        "code": code,
        "device": run.device.type,
        "files": [sha256(file) for origin in origins if origin for file in _files(str(origin))],
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _files(origin: str) -> list[Path]:
    """The local files that weights are in, in order; ``{model}`` stands for any name."""
    pattern = re.sub(r"\{\w+\}", "*", glob.escape(origin.rpartition("#")[0] or origin))
    found = [Path(name) for name in sorted(glob.glob(pattern))]
    inside = [sorted(entry.rglob("*")) if entry.is_dir() else [entry] for entry in found]
    return [file for files in inside for file in files if file.is_file()]


def take_weights(run: Run, fingerprint: str) -> Path | None:
    """Copies base weights of a run beside this one, if one has those that this one would make.

    Returns:
        The file that was copied.
    """
    file = find_weights(run, fingerprint)
    if file is not None:
        write_atomically(run.weights_file, file.read_bytes())
    return file


def find_weights(run: Run, fingerprint: str, *, own: bool = False) -> Path | None:
    """The file of base weights beside a run that are made from the same, whole; None without one.

    Args:
        run: that would take them.
        fingerprint: :func:`made_from` of it.
        own: counts the run's own file too.
    """
    here = run.weights_file.absolute()
    for file in sorted(here.parent.parent.glob(f"*/{here.name}")):
        if file == here and not own:
            continue
        try:
            if read_metadata(file).get(MADE_FROM) == fingerprint:
                read_state(file)  # whole
                return file
        except CheckpointError:  # as if it were not there
            continue
    return None
