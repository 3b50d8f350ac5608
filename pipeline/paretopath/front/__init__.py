"""The front of a search: which paths are worth having, and choosing among them.

:mod:`~paretopath.front.dominance` is the arithmetic, :mod:`~paretopath.front.points` what is known
about a path, :mod:`~paretopath.front.dynamic` about one that images leave early,
:mod:`~paretopath.front.front` the front, :mod:`~paretopath.front.records` what its file holds;
:mod:`~paretopath.front.selection` turns ``knee`` or ``budget=70%`` into paths.
"""

from paretopath.front.dominance import Archive, hypervolume, hypervolume_history, pareto_front
from paretopath.front.dynamic import DynamicPoint, Policy, SplitResult, dynamic_record
from paretopath.front.front import SCHEMA, Front, load_front
from paretopath.front.points import (
    Outcome,
    Point,
    Retrained,
    TrialRecord,
    known_cost,
)
from paretopath.front.records import to_record
from paretopath.front.selection import policies_within, select

__all__ = [
    "SCHEMA",
    "Archive",
    "DynamicPoint",
    "Front",
    "Outcome",
    "Point",
    "Policy",
    "Retrained",
    "SplitResult",
    "TrialRecord",
    "dynamic_record",
    "hypervolume",
    "hypervolume_history",
    "known_cost",
    "load_front",
    "pareto_front",
    "policies_within",
    "select",
    "to_record",
]
