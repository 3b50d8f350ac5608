"""How far long work is, for those who listen: displays."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

Progress = Callable[[int, int], None]
"""Told (done, to do), from (0, to do) on, by work that knows nothing of its listeners."""

PhaseListener = Callable[[str, int, int], None]
"""Told (title, done, to do) of each phase of a job; phases may follow or hold each other, and one
that there is nothing to do for is never told.
"""


def unheard(*_: object) -> None:
    """The listener of work that nobody watches."""


@contextmanager
def phase(on_phase: PhaseListener, title: str) -> Iterator[None]:
    """A phase that is one step."""
    on_phase(title, 0, 1)
    yield
    on_phase(title, 1, 1)
