"""The page `recipe.md`, made when the site is built: what a recipe may hold, by its own schema."""

import inspect
import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel

from paretopath import plugins
from paretopath.elastic.options import options_of, options_schema
from paretopath.elastic.registry import space_names
from paretopath.plugins import FAMILIES
from paretopath.recipe import Recipe
from paretopath.recipe.tasks import GROUP as TASKS
from paretopath.recipe.tasks import TaskSection, section_class
from paretopath.recipe.transforms import TransformSpec

Schema = Mapping[str, Any]

INTRODUCTION = """# Recipes

A recipe is one YAML file a job. `name` and `space` are required, `data` where accuracies are
measured; all else has a default. Unknown fields, other types and numbers out of range are refused
with line, field and the nearest legal name. `paretopath search RECIPE --dry-run` shows what a
recipe amounts to.

This page is made from the schema that checks recipes.
"""
TABLE = "| field | values | default | |\n| --- | --- | --- | --- |\n"
TYPES = {"integer": "whole number", "number": "number", "string": "text", "boolean": "true, false"}
LINKS = {".task": "[task](#tasks)", "space.options": "[options](#search-spaces)"}
BOUNDS = {
    "minimum": "from {}",
    "exclusiveMinimum": "over {}",
    "maximum": "up to {}",
    "exclusiveMaximum": "under {}",
}


def on_files(files: Any, *, config: Any) -> Any:
    """Adds the page; MkDocs calls this."""
    from mkdocs.structure.files import File

    files.append(File.generated(config, "recipe.md", content=page()))
    return files


def page() -> str:
    """The page as Markdown."""
    parts = [INTRODUCTION, *_sections(Recipe, "")]
    parts.append("## Tasks\n\nWhat `task` takes besides `name`.\n")
    for name in plugins.names(TASKS):
        parts += _section(section_class(name), f"task {name}", level=3)
    parts.append(
        "## Transforms\n\nEntries of `data.transforms.train` and `data.transforms.evaluation`: a "
        "`name` with its fields, or the name alone.\n"
    )
    for transform in get_args(get_args(TransformSpec)[0]):
        parts += _section(transform, transform.model_fields["name"].default, level=3)
    parts.append("## Search spaces\n\nWhat `space.options` takes, by `space.name`.\n")
    for name in space_names():
        parts.append(_family(name))
    return "\n".join(parts)


def _sections(model: type[BaseModel], path: str) -> Iterator[str]:
    """A section with those inside it."""
    if path:
        yield from _section(model, path, level=2 + path.count("."))
    else:
        yield TABLE + "\n".join(_rows(model, path)) + "\n"
    for name, inner in _inner(model).items():
        yield from _sections(inner, f"{path}.{name}".strip("."))


def _inner(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    found = {}
    for name, field in model.model_fields.items():
        for kind in (field.annotation, *get_args(field.annotation)):
            if inspect.isclass(kind) and issubclass(kind, BaseModel) and kind is not TaskSection:
                found[name] = kind
    return found


def _section(model: type[BaseModel], title: str, *, level: int) -> Iterator[str]:
    yield f"{'#' * level} {title}\n\n{_prose(inspect.getdoc(model) or '')}\n"
    rows = list(_rows(model, title))
    if rows:
        yield TABLE + "\n".join(rows) + "\n"


def _rows(model: type[BaseModel], path: str) -> Iterator[str]:
    schema, inner = model.model_json_schema(), _inner(model)
    for name, field in model.model_fields.items():
        if path and name == "name" and len(get_args(field.annotation)) == 1:
            continue  # a literal, which is the title
        if name in inner:
            whole = f"{path}.{name}".strip(".")
            said = field.description or _first_line(inner[name])
            default = "required" if field.is_required() else ""
            null = " or null" if type(None) in get_args(field.annotation) else ""
            link = f"[{whole}](#{whole.replace('.', '')})"
            yield _row(name, f"fields: {link}{null}", default, said)
            continue
        default = "required" if field.is_required() else _default(schema["properties"][name])
        values = _values(schema["properties"][name], schema.get("$defs", {}))
        values = LINKS.get(f"{path}.{name}", values)
        yield _row(name, values, default, field.description or "")


def _family(name: str) -> str:
    space = plugins.find(FAMILIES, name, kind="search space")
    document = inspect.getdoc(space) or ""
    about, said, schema = (
        document.split("\nArgs:\n")[0],
        _arguments(document),
        options_schema(space),
    )
    rows = []
    for option in options_of(space):
        entry = schema["properties"][option]
        default = "required" if option in schema.get("required", ()) else _default(entry)
        rows.append(
            _row(option, _values(entry, schema.get("$defs", {})), default, said.get(option, ""))
        )
    return f"### {name}\n\n{_prose(about.strip())}\n\n{TABLE}" + "\n".join(rows) + "\n"


def _arguments(document: str) -> dict[str, str]:
    """What a Google-style docstring says of each argument."""
    section = document.partition("\nArgs:\n")[2].split("\n\n")[0]
    entries = re.split(r"^    (?=\w+:)", section, flags=re.MULTILINE)[1:]
    return {
        name: " ".join(text.replace("None", "null").split())
        for name, _, text in (e.partition(":") for e in entries)
    }


def _row(name: str, values: str, default: str, description: str) -> str:
    cells = (f"`{name}`", values, default, _prose(description))
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"


def _prose(text: str) -> str:
    return re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")


def _first_line(model: type[BaseModel]) -> str:
    return (inspect.getdoc(model) or "").partition("\n")[0]


def _default(entry: Schema) -> str:
    if "default" not in entry:
        return ""
    return f"`{json.dumps(entry['default'], ensure_ascii=False)}`"


def _values(entry: Schema, definitions: Mapping[str, Schema]) -> str:
    """What a value may be, in words, from its JSON schema."""
    if "$ref" in entry:
        inner = definitions[entry["$ref"].rpartition("/")[2]]
        return _values(inner, definitions)
    if "enum" in entry:
        return ", ".join(f"`{value}`" for value in entry["enum"])
    for union in ("anyOf", "oneOf"):
        if union in entry:
            kinds = [_values(one, definitions) for one in entry[union]]
            if "discriminator" in entry:
                return "[transform](#transforms)"
            return " or ".join(dict.fromkeys(kinds))
    kind = entry.get("type")
    if kind == "array":
        if "prefixItems" in entry:
            return f"[{', '.join(_values(one, definitions) for one in entry['prefixItems'])}]"
        return f"list of {_values(entry.get('items', {}), definitions)}"
    if kind == "object":
        held = entry.get("additionalProperties")
        return f"mapping to {_values(held, definitions)}" if isinstance(held, dict) else "mapping"
    if kind == "null":
        return "null"
    bounds = [text.format(entry[key]) for key, text in BOUNDS.items() if key in entry]
    pattern = [f"like `{entry['pattern']}`"] if "pattern" in entry else []
    return " ".join([TYPES.get(str(kind), "any value"), *bounds, *pattern])
