"""Search spaces by name: ``vit`` from an installed entry point, or ``module:Class`` that a user
names.
"""

from typing import Any

from paretopath import plugins
from paretopath.elastic.model import ElasticSpace
from paretopath.errors import InvalidValueError

GROUP = "paretopath.search_spaces"


def space_names() -> list[str]:
    """The names that :func:`create_space` knows without a module, sorted."""
    return plugins.names(GROUP)


def create_space(name: str, **options: Any) -> ElasticSpace:
    """Makes a search space.

    Args:
        name: a registered family (an entry point of the group ``paretopath.search_spaces``) or
            ``module:Class`` of an :class:`~paretopath.elastic.ElasticSpace`.
        options: keyword arguments of that class.

    Raises:
        InvalidValueError: no such family, or the class does not take these options.
    """
    space_class = plugins.find(GROUP, name, kind="search space")
    if not (isinstance(space_class, type) and issubclass(space_class, ElasticSpace)):
        raise InvalidValueError(f"{name} is not an ElasticSpace")
    try:
        return space_class(**options)
    except TypeError as error:
        raise InvalidValueError(f"search space {name!r}: {error}") from error
