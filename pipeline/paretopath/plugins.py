"""What others add to the engine, found by name: model families and tasks.

A name is an entry point that an installed package registers, or ``module:Class`` of a module that
can be imported. Nothing here knows what is found.
"""

from functools import cache
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from paretopath.errors import InvalidValueError, nearest

FAMILIES = "paretopath.search_spaces"
"""The group of entry points that are model families."""


@cache
def _registered(group: str) -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=group)}


def names(group: str) -> list[str]:
    """The names that :func:`find` knows in a group of entry points, sorted."""
    return sorted(_registered(group))


def extras(group: str, name: str) -> list[str]:
    """The extras of its package that what a name stands for can't do without."""
    entry = _registered(group).get(name)
    return [] if entry is None else entry.extras


def require(group: str, name: str, *, kind: str) -> None:
    """InvalidValueError where :func:`find` knows no such name; nothing is imported."""
    if ":" in name or name in _registered(group):
        return
    known = names(group)
    legal = nearest(name, [*known, "module:Class"])
    if not known:
        legal = "the package registers none: install it again (uv sync)"
    raise InvalidValueError(f"there is no {kind} {name!r}; {legal}")


def find(group: str, name: str, *, kind: str) -> Any:
    """Imports what a name stands for.

    Args:
        group: of entry points, such as ``paretopath.tasks``.
        name: one of :func:`names`, or ``module:Class``.
        kind: what is looked for, as people call it, for errors: ``task``.

    Raises:
        InvalidValueError: there is no such name, or its module can't be imported.
    """
    require(group, name, kind=kind)
    entry = _registered(group).get(name)
    module, _, attribute = name.partition(":")
    if entry is not None:
        module, attribute = entry.module, entry.attr
    try:
        return getattr(import_module(module), attribute)
    except Exception as error:  # a module of someone else's may fail in any way
        raise InvalidValueError(
            f"{kind} {name!r} can't be imported ({type(error).__name__}: {error}); "
            f"modules are looked for among installed packages and on PYTHONPATH"
        ) from error
