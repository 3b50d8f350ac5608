"""Search spaces by name: ``vit`` from an installed entry point, or ``module:Class`` that a user
names.
"""

from typing import Any

from paretopath import plugins
from paretopath.elastic.model import ElasticSpace
from paretopath.elastic.options import options_of
from paretopath.errors import InvalidValueError, ParetopathError, nearest


def space_names() -> list[str]:
    """The names that :func:`create_space` knows without a module, sorted."""
    return plugins.names(plugins.FAMILIES)


def space_class(name: str) -> type[ElasticSpace]:
    """The class of a search space by its name; see :func:`create_space`.

    Raises:
        InvalidValueError: there is none.
    """
    found = plugins.find(plugins.FAMILIES, name, kind="search space")
    if not (isinstance(found, type) and issubclass(found, ElasticSpace)):
        raise InvalidValueError(f"{name} is not an ElasticSpace")
    return found


def create_space(name: str, **options: Any) -> ElasticSpace:
    """Makes a search space.

    Args:
        name: a registered family (an entry point of the group ``paretopath.search_spaces``) or
            ``module:Class`` of an :class:`~paretopath.elastic.ElasticSpace`.
        options: keyword arguments of that class.

    Raises:
        InvalidValueError: no such family, or the class does not take these options.
    """
    family = space_class(name)
    for option in options:
        legal = options_of(family)
        if option not in legal:
            raise InvalidValueError(
                f"search space {name!r} has no option {option!r}; {nearest(option, legal)}"
            )
    try:
        return family(**options)
    except ParetopathError as error:
        raise InvalidValueError(f"search space {name!r}: {error}") from error
    except Exception as error:  # of someone else's family, or of the library whose model it is
        raise InvalidValueError(
            f"search space {name!r} can't be built with {options!r:.200} "
            f"({type(error).__name__}: {error})"
        ) from error
