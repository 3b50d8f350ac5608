"""The search of a space: which paths are tried, and the study that records them.

:mod:`~paretopath.search.study` runs it, alone; :mod:`~paretopath.search.workers` shares it among
processes that may die (:mod:`~paretopath.search.claims`); both by one
:mod:`~paretopath.search.loop`. What is tried: :mod:`~paretopath.search.planning`,
:mod:`~paretopath.search.candidates` and :mod:`~paretopath.search.samplers`, by default
:mod:`~paretopath.search.proposer`, which searches (:mod:`~paretopath.search.evolution`) an accuracy
model (:mod:`~paretopath.search.surrogate`, fitted by :mod:`~paretopath.search.hyperparameters`).
What an evaluation may leave out: :mod:`~paretopath.search.racing`. What is kept:
:mod:`~paretopath.search.record`, in :mod:`~paretopath.search.storage` or
:mod:`~paretopath.search.databases`. :mod:`~paretopath.search.single_changes` tries every decision
alone.
"""

from paretopath.search.record import Evaluated, evaluated, load_study
from paretopath.search.settings import SearchProgress, SearchSettings
from paretopath.search.study import search

__all__ = [
    "Evaluated",
    "SearchProgress",
    "SearchSettings",
    "evaluated",
    "load_study",
    "search",
]
