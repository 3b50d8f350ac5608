"""The front of a search: which paths are worth having, and choosing among them.

:mod:`~pipeline.front.dominance` is the arithmetic, :mod:`~pipeline.front.points` what is known
about a path, :mod:`~pipeline.front.front` the front and its file;
:mod:`~pipeline.front.selection` turns ``knee`` or ``budget=70%`` into paths.
"""

from pipeline.front.dominance import Archive, hypervolume, hypervolume_history, pareto_front
from pipeline.front.front import SCHEMA, Front, to_record
from pipeline.front.points import COSTS, CostName, Point, Retrained, State, TrialRecord, known_cost
from pipeline.front.selection import select

__all__ = [
    "COSTS",
    "SCHEMA",
    "Archive",
    "CostName",
    "Front",
    "Point",
    "Retrained",
    "State",
    "TrialRecord",
    "hypervolume",
    "hypervolume_history",
    "known_cost",
    "pareto_front",
    "select",
    "to_record",
]
