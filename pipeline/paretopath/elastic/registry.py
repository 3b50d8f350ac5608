"""Search spaces by name: ``vit`` from an installed entry point, or ``module:Class`` that a user
names.
"""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

from paretopath.elastic.model import ElasticSpace
from paretopath.errors import InvalidValueError, nearest

GROUP = "paretopath.search_spaces"


def space_names() -> list[str]:
    """The names that :func:`create_space` knows without a module, sorted."""
    return sorted({entry.name for entry in entry_points(group=GROUP)})


def create_space(name: str, **options: Any) -> ElasticSpace:
    """Makes a search space.

    Args:
        name: a registered family (an entry point of the group ``paretopath.search_spaces``) or
            ``module:Class`` of an :class:`~paretopath.elastic.ElasticSpace`.
        options: keyword arguments of that class.

    Raises:
        InvalidValueError: no such family, or the class does not take these options.
    """
    found = {entry.name: entry.value for entry in entry_points(group=GROUP)}
    target = name if ":" in name else found.get(name)
    if target is None:
        raise InvalidValueError(
            f"there is no search space {name!r}; {nearest(name, sorted(found))}"
        )
    module, _, attribute = target.partition(":")
    try:
        space_class = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(f"search space {name!r} can't be imported: {error}") from error
    if not (isinstance(space_class, type) and issubclass(space_class, ElasticSpace)):
        raise InvalidValueError(f"{target} is not an ElasticSpace")
    try:
        return space_class(**options)
    except TypeError as error:
        raise InvalidValueError(f"search space {name!r}: {error}") from error
