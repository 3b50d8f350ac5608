"""The search of a space: which paths are tried, and the study that records them.

:mod:`~pipeline.search.study` runs it, alone; :mod:`~pipeline.search.workers` shares it among
processes that may die (:mod:`~pipeline.search.claims`). What is tried:
:mod:`~pipeline.search.candidates` and :mod:`~pipeline.search.samplers`, by default
:mod:`~pipeline.search.proposer`, which searches (:mod:`~pipeline.search.evolution`) an accuracy
model (:mod:`~pipeline.search.surrogate`, fitted by :mod:`~pipeline.search.hyperparameters`). What
an evaluation may leave out: :mod:`~pipeline.search.racing`. What is kept:
:mod:`~pipeline.search.record`, in :mod:`~pipeline.search.storage` or
:mod:`~pipeline.search.databases`. :mod:`~pipeline.search.single_changes` tries every decision
alone.
"""

from pipeline.search.record import Evaluated, evaluated, load_study
from pipeline.search.study import Evaluator, SearchProgress, SearchSettings, search

__all__ = [
    "Evaluated",
    "Evaluator",
    "SearchProgress",
    "SearchSettings",
    "evaluated",
    "load_study",
    "search",
]
