"""A YAML file as plain values, with the line on which each of them stands."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from pipeline.errors import RecipeError, nearest

Location = Sequence[int | str]


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, reading ``1e-3`` as the number that everyone means (YAML 1.2) and not as text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\d[\d_]*)(\.[\d_]*)?[eE][-+]?\d+$"),
    list("-+0123456789"),
)


@dataclass(frozen=True)
class Document:
    """A YAML file that was read.

    Attributes:
        file: its name, as the user gave it.
        values: the mapping that it holds.
        root: its node tree, which knows the lines.
    """

    file: str
    values: dict[str, Any]
    root: yaml.Node

    def line(self, location: Location) -> int:
        """The line, from 1, of a field; that of the nearest enclosing one where the file doesn't hold it."""
        node, line = self.root, self.root.start_mark.line
        for part in location:
            found = _child(node, part)
            if found is not None:
                line, node = found
        return line + 1

    def holds(self, location: Location) -> list[int | str]:
        """The parts of a location that are in the file: a schema adds its own, such as a union's choice."""
        node, parts = self.root, []
        for part in location:
            found = _child(node, part)
            if found is not None:
                parts.append(part)
                node = found[1]
        return parts


def read_document(file: str | Path) -> Document:
    """Reads a recipe's YAML.

    Raises:
        RecipeError: no such file, not YAML, a key twice, or something other than a mapping; with its line.
    """
    path = Path(file)
    text = _read(path)
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is not None:
            _refuse_repetition(root, str(file), set(), ())
            values = loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f":{mark.line + 1}" if mark else ""
        column = f" (column {mark.column + 1})" if mark else ""
        what = " ".join(str(error.problem or error.context).split())
        raise RecipeError(f"{file}{where}: this is not YAML: {what}{column}") from error
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date such as 2024-13-45
        raise RecipeError(f"{file}: this is not YAML: {' '.join(str(error).split())}") from error
    finally:
        loader.dispose()
    if root is None or values is None:
        raise RecipeError(
            f"{file}:1: a recipe must be a mapping of sections, but the file is empty"
        )
    if not isinstance(values, dict):
        line = root.start_mark.line + 1
        raise RecipeError(
            f"{file}:{line}: a recipe must be a mapping of sections, but this is {_kind(values)}"
        )
    return Document(str(file), values, root)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {path}{_existing(path)}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{path}: a recipe must be UTF-8 text, but byte {error.start} is not"
        ) from error
    except OSError as error:
        raise RecipeError(f"the recipe {path} can't be read: {error.strerror}") from error


def _existing(path: Path) -> str:
    """The recipes that the user may have meant: those beside it, else those in ``recipes/``."""
    for folder in (path.parent, Path("recipes")):
        found = sorted(str(p) for p in folder.glob("*.y*ml"))
        if found:
            return "; " + nearest(path if path.suffix else path.with_suffix(".yaml"), found)
    return ""


def _kind(value: Any) -> str:
    return "a list" if isinstance(value, list) else f"{value!r}"


def _child(node: yaml.Node, part: int | str) -> tuple[int, yaml.Node] | None:
    """The line, from 0, and the node of one key or index."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # the last of merged ones counts
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key.start_mark.line, value
    if (
        isinstance(node, yaml.SequenceNode)
        and isinstance(part, int)
        and 0 <= part < len(node.value)
    ):
        item = node.value[part]
        return item.start_mark.line, item
    return None


def _refuse_repetition(node: yaml.Node, file: str, seen: set[int], above: tuple[int, ...]) -> None:
    """Raises RecipeError for a key that a mapping holds twice, and for a node that holds itself."""
    if id(node) in above:
        raise RecipeError(f"{file}:{node.start_mark.line + 1}: a value must not contain itself")
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    above = (*above, id(node))
    if isinstance(node, yaml.SequenceNode):
        for item in node.value:
            _refuse_repetition(item, file, seen, above)
        return
    lines: dict[tuple[str, str], int] = {}
    for key, value in node.value:
        if isinstance(key, yaml.ScalarNode):
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in lines:
                raise RecipeError(
                    f"{file}:{line}: {key.value} is given twice, first on line {lines[name]}"
                )
            lines[name] = line
        _refuse_repetition(value, file, seen, above)
