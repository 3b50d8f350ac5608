"""What a person should know of their data, though it can be worked with."""

import logging
from functools import cache

_log = logging.getLogger(__name__)


@cache
def say(text: str) -> None:
    """Warns of something: once a process, however often a job opens the data."""
    _log.warning("%s", text)


def listed(names: list[str]) -> str:
    """The first names of a list, and how many more there are."""
    shown = ", ".join(repr(name) for name in names[:5])
    return shown + (f" and {len(names) - 5} more" if len(names) > 5 else "")
