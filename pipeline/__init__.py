"""The engine's folder, and its name of before: ``pipeline.cost`` is ``paretopath.cost``.

The package is ``paretopath``, in the folder beside this file. A program may have a package
``pipeline`` of its own; nothing in paretopath imports this one.
"""

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

_MOVED = {"runtime": "deploy"}  # those of the public names that are elsewhere now


class _NamesOfBefore(MetaPathFinder, Loader):
    """Finds ``pipeline.NAME`` as the module ``paretopath.NAME`` itself, not a copy."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if path is not __path__:  # a submodule of another package of this name
            return None
        return ModuleSpec(name, self)

    def exec_module(self, module: ModuleType) -> None:
        inner = module.__name__.removeprefix(f"{__name__}.")
        sys.modules[module.__name__] = import_module(f"paretopath.{_MOVED.get(inner, inner)}")


__path__: list[str] = []
sys.meta_path.insert(0, _NamesOfBefore())
