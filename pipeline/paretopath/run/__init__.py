"""A run directory, and the objects that its recipe describes.

Each name is imported when it is first asked for: what deploys a run needs its directory alone,
nothing of the search.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paretopath.run.directory import RunDirectory, default_directory, move_aside
    from paretopath.run.parts import (
        Parts,
        accuracy_source,
        assemble,
        budgets_of,
        build_scoring,
        build_searched,
        build_space,
        build_table,
        keep_table,
        load_model,
        open_images,
        read_path,
    )
    from paretopath.run.run import Run
    from paretopath.run.scoring import Scoring
    from paretopath.run.trials import trial_record

_HOMES = {
    "Parts": "parts",
    "Run": "run",
    "RunDirectory": "directory",
    "Scoring": "scoring",
    "accuracy_source": "parts",
    "assemble": "parts",
    "budgets_of": "parts",
    "build_scoring": "parts",
    "build_searched": "parts",
    "build_space": "parts",
    "build_table": "parts",
    "default_directory": "directory",
    "keep_table": "parts",
    "load_model": "parts",
    "move_aside": "directory",
    "open_images": "parts",
    "read_path": "parts",
    "trial_record": "trials",
}

__all__ = [
    "Parts",
    "Run",
    "RunDirectory",
    "Scoring",
    "accuracy_source",
    "assemble",
    "budgets_of",
    "build_scoring",
    "build_searched",
    "build_space",
    "build_table",
    "default_directory",
    "keep_table",
    "load_model",
    "move_aside",
    "open_images",
    "read_path",
    "trial_record",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
