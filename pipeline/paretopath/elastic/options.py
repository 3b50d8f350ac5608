"""Options of a space, checked by the types of its constructor before it runs.

The constructor's annotations are the rules: :func:`checked` holds a family's own options to them,
:func:`checked_arguments` the arguments of the library whose model it is.
"""

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial, wraps
from typing import Annotated, Any, Concatenate, ParamSpec, TypeVar, cast, get_type_hints

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, create_model

from paretopath.errors import InvalidValueError, ParetopathError
from paretopath.recipe.errors import find_mistakes, parts_held

S = TypeVar("S")
T = TypeVar("T")
P = ParamSpec("P")


def _listed(value: Any) -> Any:
    """Lists, ranges and arrays as tuples; anything else as it is."""
    if hasattr(value, "tolist"):  # NumPy's numbers too
        value = value.tolist()
    return tuple(value) if isinstance(value, list | range | set | frozenset) else value


Listed = BeforeValidator(_listed)
Count = Annotated[int, Field(ge=1, le=100_000)]
"""Of classes, pixels, heads: more than any model has is a slip of the finger."""

Share = Annotated[float, Field(gt=0, le=1)]
Counts = Annotated[tuple[Count, ...], Listed, Field(min_length=1)]
Indices = Annotated[tuple[Annotated[int, Field(ge=0)], ...], Listed]
Shares = Annotated[tuple[Share, ...], Listed, Field(min_length=1)]
Names = Annotated[tuple[str, ...], Listed]
Pixels = Count | Annotated[tuple[Count, Count], Listed]
"""Height and width, or one number for both."""


def checked(init: Callable[Concatenate[S, P], None]) -> Callable[Concatenate[S, P], None]:
    """A constructor that takes keyword arguments of its annotated types alone.

    It raises InvalidValueError, with option, rule and value, for any other; lists come in as the
    tuples that the annotations name.
    """

    @wraps(init)
    def checked_init(self: S, *args: P.args, **options: P.kwargs) -> None:
        init(self, *args, **_check(_schema(init), options, root="space"))  # type: ignore[arg-type]

    return cast(Callable[Concatenate[S, P], None], checked_init)


def options_of(space_class: type) -> list[str]:
    """The names of a space's options, in the order of its constructor."""
    return list(_schema(space_class).model_fields)


def options_schema(space_class: type) -> dict[str, Any]:
    """The JSON schema of a space's options, for documentation."""
    return _schema(space_class).model_json_schema()


def checked_arguments(
    constructor: Callable[..., Any],
    arguments: Mapping[str, Any],
    *,
    field: str,
    without: Sequence[str] = (),
    may_be_zero: Sequence[str] = (),
) -> dict[str, Any]:
    """Arguments for a library's constructor, held to its annotations.

    Args:
        constructor: a class, or a function.
        arguments: what a user gave for it; lists become tuples.
        field: the option that holds them, for messages.
        without: parameters that are not for users.
        may_be_zero: whole numbers that may be under 1.

    Raises:
        InvalidValueError: no such argument, another type, or a number outside any sense.
    """
    schema = _schema(constructor, tuple(without))
    given = {name: _deeply_listed(value) for name, value in arguments.items()}
    outer = create_model("Arguments", **{field: (schema, ...)})  # type: ignore[call-overload]
    try:
        outer.model_validate({field: given})
    except ValidationError as error:
        raise _mistake(error, outer, {field: given}, root="space") from error
    for name, value in given.items():
        least = 0 if name in may_be_zero else 1
        for number in value if isinstance(value, tuple) else (value,):
            if type(number) is int and number < least:
                raise InvalidValueError(f"{field}.{name} must be at least {least}, but got {value}")
    return given


def tried(build: Callable[[dict[str, Any]], T], arguments: Mapping[str, Any], *, field: str) -> T:
    """What a library builds from arguments.

    Args:
        build: may raise anything.
        arguments: each is tried away, where they fail, to find those that are to blame.
        field: the option that holds them, for messages.

    Raises:
        InvalidValueError: it can't be built.
    """
    try:
        return build(dict(arguments))
    except ParetopathError:
        raise
    except Exception as error:  # whatever a library raises
        blamed = [name for name in arguments if _builds(build, arguments, name)]
        shown = ", ".join(f"{name} {arguments[name]!r}" for name in blamed or arguments)
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}".rstrip(": ")
        raise InvalidValueError(
            f"{field} must make a model, but with {shown or 'them'} it can't be built ({said})"
        ) from error


def _builds(build: Callable[[dict[str, Any]], Any], arguments: Mapping[str, Any], but: str) -> bool:
    try:
        build({name: value for name, value in arguments.items() if name != but})
    except Exception:
        return False
    return True


@cache
def _schema(function: Callable[..., Any], without: tuple[str, ...] = ()) -> type[BaseModel]:
    """A model with a field for each keyword argument."""
    signed: Any = getattr(function, "__init__") if isinstance(function, type) else function  # noqa: B009
    signed = inspect.unwrap(signed)
    try:
        hints = get_type_hints(signed, include_extras=True)
    except NameError:  # a library's annotation in quotes, of what it does not import
        hints = {n: Any if isinstance(a, str) else a for n, a in signed.__annotations__.items()}
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(signed).parameters.items():
        named = parameter.kind in (parameter.KEYWORD_ONLY, parameter.POSITIONAL_OR_KEYWORD)
        if named and name not in ("self", *without) and not name.startswith("_"):
            default = ... if parameter.default is parameter.empty else parameter.default
            fields[name] = (hints.get(name, Any), default)
    config = ConfigDict(
        strict=True,
        extra="forbid",
        allow_inf_nan=False,
        arbitrary_types_allowed=True,
        protected_namespaces=(),
    )
    schema: type[BaseModel] = create_model("Options", __config__=config, **fields)
    return schema


def _check(schema: type[BaseModel], options: Mapping[str, Any], *, root: str) -> dict[str, Any]:
    try:
        found = schema.model_validate(dict(options))
    except ValidationError as error:
        raise _mistake(error, schema, options, root=root) from error
    return {name: getattr(found, name) for name in found.model_fields_set}


def _mistake(
    error: ValidationError, schema: type[BaseModel], values: Any, *, root: str
) -> InvalidValueError:
    mistakes = find_mistakes(error, schema, partial(parts_held, values), root=root)
    more = f" (and {len(mistakes) - 1} more)" if len(mistakes) > 1 else ""
    return InvalidValueError(mistakes[0].sentence + more)


def _deeply_listed(value: Any) -> Any:
    value = _listed(value)
    return tuple(map(_deeply_listed, value)) if isinstance(value, tuple) else value
