"""The front of a search: which paths are worth having, and choosing among them.

:mod:`~paretopath.front.dominance` is the arithmetic, :mod:`~paretopath.front.points` what is known
about a path, :mod:`~paretopath.front.front` the front and its file;
:mod:`~paretopath.front.selection` turns ``knee`` or ``budget=70%`` into paths.
"""

from paretopath.front.dominance import Archive, hypervolume, hypervolume_history, pareto_front
from paretopath.front.front import SCHEMA, Front, load_front, to_record
from paretopath.front.points import (
    Outcome,
    Point,
    Retrained,
    TrialRecord,
    known_cost,
)
from paretopath.front.selection import select

__all__ = [
    "SCHEMA",
    "Archive",
    "Front",
    "Outcome",
    "Point",
    "Retrained",
    "TrialRecord",
    "hypervolume",
    "hypervolume_history",
    "known_cost",
    "load_front",
    "pareto_front",
    "select",
    "to_record",
]
