"""A YAML file as plain values, with the line on which each of them stands."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paretopath.errors import ParetopathError, RecipeError, nearest

Location = Sequence[int | str]

_FLOAT = "tag:yaml.org,2002:float"
_EXPONENT = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+$")


class _Loader(yaml.SafeLoader):
    """YAML's safe subset, in which ``1e-3`` is a number as in YAML 1.2, and not text."""


class _Dumper(yaml.SafeDumper):
    """Writes what :class:`_Loader` reads: a text such as ``1e-3`` is quoted."""


_Loader.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+0123456789"))
_Dumper.add_implicit_resolver(_FLOAT, _EXPONENT, list("-+0123456789"))


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
        """The line, from 1, of a field, or of what encloses it where the file doesn't hold it."""
        node, line = self.root, self.root.start_mark.line
        for part in location:
            found = _child(node, part)
            if found is not None:
                line, node = found
        return line + 1

    def held(self, location: Location) -> list[int | str]:
        """The parts of a location that the file holds: a schema adds its own (a union's choice)."""
        node, parts = self.root, []
        for part in location:
            found = _child(node, part)
            if found is not None:
                parts.append(part)
                node = found[1]
        return parts


def read_document(file: Path) -> Document:
    """Reads a recipe's YAML.

    Raises:
        RecipeError: no such file, not YAML, a key twice, or not a mapping; with its line.
    """
    root, values = parse_yaml(_read(file), file, RecipeError)
    if root is None or values is None:
        raise RecipeError(f"{file}:1: a recipe must be a mapping of sections, but this is empty")
    if not isinstance(values, dict):
        kind = "a list" if isinstance(values, list) else f"the value {values!r}"
        line = f":{root.start_mark.line + 1}"
        raise RecipeError(f"{file}{line}: a recipe must be a mapping of sections, but got {kind}")
    return Document(str(file), values, root)


def parse_yaml(
    text: str, file: Path, refuse: type[ParetopathError]
) -> tuple[yaml.Node | None, Any]:
    """The node tree of a YAML text and its values; None for both of an empty one.

    Args:
        text: what the file holds.
        file: its name, for errors.
        refuse: raised where it is not YAML, has a key twice or a value that holds itself, with the
            line.
    """
    try:
        return _parse(text, file, refuse)
    except yaml.MarkedYAMLError as error:
        is_cut_off = "<stream end>" in str(error.problem)
        mark = (error.context_mark if is_cut_off else None) or error.problem_mark
        what = " ".join(str(error.problem or error.context).split())
        line, column = (f":{mark.line + 1}", f" (column {mark.column + 1})") if mark else ("", "")
        raise refuse(f"{file}{line}: this is not YAML: {what}{column}") from error
    except ParetopathError:
        raise
    # ValueError: a date such as 2024-13-45; RecursionError: thousands of nested brackets
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        what = " ".join(str(error).split())
        raise refuse(f"{file}: this is not YAML: {what}") from error


def _parse(text: str, file: Path, refuse: type[ParetopathError]) -> tuple[yaml.Node | None, Any]:
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None, None
        _refuse_repetition(root, file, refuse, seen=set(), above=())
        return root, loader.construct_document(root)
    finally:
        loader.dispose()


def write_document(values: Mapping[str, Any]) -> str:
    """Plain values as YAML that :func:`read_document` reads back equal."""
    text: str = yaml.dump(dict(values), Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"there is no recipe {file}{_existing(file)}") from None
    except UnicodeDecodeError as error:
        raise RecipeError(
            f"{file}: a recipe must be text in UTF-8, but byte {error.start} is not"
        ) from error
    except OSError as error:
        raise RecipeError(f"the recipe {file} can't be read: {error.strerror}") from error


def _existing(file: Path) -> str:
    """The recipes that may have been meant: those beside the file, else those in ``recipes/``."""
    for folder in (file.parent, Path("recipes")):
        found = sorted(str(path) for path in folder.glob("*.y*ml"))
        if found:
            wanted = folder / file.name
            return "; " + nearest(wanted if file.suffix else wanted.with_suffix(".yaml"), found)
    return ""


def _child(node: yaml.Node, part: int | str) -> tuple[int, yaml.Node] | None:
    """The line, from 0, and the node of one key or index."""
    if isinstance(node, yaml.MappingNode):
        for key, value in reversed(node.value):  # what a merge (<<) brings stands first
            if isinstance(key, yaml.ScalarNode) and key.value == str(part):
                return key.start_mark.line, value
    is_index = isinstance(part, int) and isinstance(node, yaml.SequenceNode)
    if is_index and 0 <= int(part) < len(node.value):
        item = node.value[int(part)]
        return item.start_mark.line, item
    return None


def _refuse_repetition(
    node: yaml.Node,
    file: Path,
    refuse: type[ParetopathError],
    *,
    seen: set[int],
    above: tuple[int, ...],
) -> None:
    """Raises an error where a mapping holds a key twice, or a value holds itself.

    Args:
        node: where to look, and below.
        file: for the message.
        refuse: the error.
        seen: ids of nodes that were looked at: an anchor's node can be used many times.
        above: ids of the nodes that enclose this one.
    """
    line = node.start_mark.line + 1
    if id(node) in above:
        raise refuse(f"{file}:{line}: a value must not contain itself")
    if id(node) in seen or not isinstance(node, yaml.CollectionNode):
        return
    seen.add(id(node))
    first: dict[tuple[str, str], int] = {}
    for item in node.value:
        key, value = item if isinstance(item, tuple) else (None, item)
        if isinstance(key, yaml.ScalarNode):
            line, name = key.start_mark.line + 1, (key.tag, key.value)
            if name in first:
                raise refuse(
                    f"{file}:{line}: a key must be given once, but {key.value!r} "
                    f"already stands on line {first[name]}"
                )
            first[name] = line
        _refuse_repetition(value, file, refuse, seen=seen, above=(*above, id(node)))
