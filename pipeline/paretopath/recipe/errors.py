"""A schema's complaints as one sentence for a person: which field, what rule, what it got."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from paretopath.errors import nearest
from paretopath.recipe.document import Location

# pydantic's kind of error -> the rule that was broken; fields in braces are of the error's context
_RULES = {
    "int_type": "must be a whole number",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be text",
    "tuple_type": "must be a list",
    "list_type": "must be a list",
    "dict_type": "must be a mapping",
    "model_type": "must be a mapping of fields",
    "finite_number": "must be finite",
    "greater_than": "must be over {gt:g}",
    "greater_than_equal": "must be at least {ge:g}",
    "less_than": "must be under {lt:g}",
    "less_than_equal": "must be at most {le:g}",
    "string_too_short": "must not be empty",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
    "invalid_key": "must have text as its keys",
    "mapping_type": "must be a mapping",
    "none_required": "must be null",
    "callable_type": "must be a Python class or function",
    "is_type": "must be a Python class",
    "is_subclass_of": "must be a subclass of {class}, which no recipe can name: leave it out",
    "is_instance_of": "must be a {class}",
}
_LONGEST_VALUE = 60


@dataclass(frozen=True)
class Mistake:
    """One thing that is wrong.

    Attributes:
        location: keys and indices down to the field.
        sentence: ``search.trials must be at least 1, but got 0``.
    """

    location: tuple[int | str, ...]
    sentence: str


def find_mistakes(
    error: ValidationError,
    schema: type[BaseModel],
    held: Callable[[Location], Sequence[int | str]],
    *,
    chosen: Mapping[Any, type[BaseModel]] = {},
    root: str = "recipe",
) -> list[Mistake]:
    """What a validation found, one entry a field.

    Args:
        error: from ``schema.model_validate``.
        schema: the model of the whole document.
        held: the parts of a location that the document holds; the others are the schema's own.
        chosen: sections that stand for any of a kind -> the one that this document names.
        root: what the whole document is.
    """
    mistakes: dict[tuple[int | str, ...], Mistake] = {}
    for details in error.errors(include_url=False):
        location = tuple(held(details["loc"]))
        if details["type"] == "missing":
            location = (*location, details["loc"][-1])
        if location not in mistakes:
            sentence = _sentence(details, location, schema, chosen, root)
            mistakes[location] = Mistake(location, sentence)
    return list(mistakes.values())


def parts_held(values: Any, location: Location) -> list[int | str]:
    """The parts of a location that plain values hold: a schema adds its own (a union's choice)."""
    parts = []
    for part in location:
        is_index = isinstance(values, list | tuple) and isinstance(part, int) and part < len(values)
        if is_index or (isinstance(values, Mapping) and part in values):
            values = values[part]
            parts.append(part)
    return parts


def dotted(location: Location) -> str:
    """``data.transforms.train[0].size``."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in location)
    return text.removeprefix(".")


def _sentence(
    details: ErrorDetails,
    location: Location,
    schema: type[BaseModel],
    chosen: Mapping[Any, type[BaseModel]],
    root: str,
) -> str:
    kind, context = details["type"], details.get("ctx", {})
    field, got = dotted(location) or f"the {root}", _shown(details["input"])
    if kind == "extra_forbidden":
        section = dotted(location[:-1]) or f"a {root}"
        legal = _fields(schema, details["loc"][:-1], chosen)
        return f"{field} is not a field of {section}; {nearest(location[-1], legal)}"
    if kind == "missing":
        return f"{field} is missing"
    if kind == "literal_error":
        return f"{field} must be one of its choices, but got {got}; " + nearest(
            details["input"], _quoted(context["expected"])
        )
    if kind == "union_tag_invalid":
        (discriminator,) = _quoted(context["discriminator"])
        return (
            f"{field}.{discriminator} must be one of its choices, but got {context['tag']!r}; "
            + nearest(context["tag"], _quoted(context["expected_tags"]))
        )
    if kind == "union_tag_not_found":
        (discriminator,) = _quoted(context["discriminator"])
        return f"{field}.{discriminator} is missing"
    if kind == "value_error":  # one of our own validators
        rule = str(context["error"])
        if not rule.startswith("must "):
            return f"{field}: {rule}"
        return f"{field} {rule}" if "but " in rule else f"{field} {rule}, but got {got}"
    rule = _RULES.get(kind, details["msg"]).format(**context)
    return f"{field} {rule}, but got {got}"


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _shown(value: Any) -> str:
    """A value as the user wrote it, on one line; text that looks like a number is called text."""
    if value is None:
        return "nothing (null)"
    if isinstance(value, bool):
        return str(value).lower()
    text = " ".join(repr(value).split())
    if len(text) > _LONGEST_VALUE:
        text = text[: _LONGEST_VALUE - 1] + "…"
    is_number_in_quotes = isinstance(value, str) and re.fullmatch(r"[-+.\deE]+", value)
    return f"{text} (text)" if is_number_in_quotes else text


def _fields(
    annotation: Any, location: Location, chosen: Mapping[Any, type[BaseModel]]
) -> list[str]:
    """The legal fields of the section at a location, whose parts may be a union's choice."""
    models = [chosen.get(model, model) for model in _models(annotation)]
    if not location:
        return [name for model in models for name in model.model_fields]
    part, rest = location[0], location[1:]
    for model in models:
        if part in model.model_fields:
            return _fields(model.model_fields[str(part)].annotation, rest, chosen)
        if "name" in model.model_fields and model.model_fields["name"].default == part:
            return _fields(model, rest, chosen)
    return _fields(annotation, rest, chosen)


def _models(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for inner in get_args(annotation) for model in _models(inner)]
