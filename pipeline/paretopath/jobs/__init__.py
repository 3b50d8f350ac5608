"""The jobs of a run: base weights, search, retraining, evaluation. Each resumes where it was
interrupted.

Each name is imported when it is first asked for: what drafts a recipe needs no search, and what
searches no retraining. Lightning is imported by the functions that need it.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paretopath.jobs.browsing import track_outcome, track_sensitivity
    from paretopath.jobs.drafting import Draft, draft, write_recipe
    from paretopath.jobs.evaluation import (
        Rescored,
        evaluate_run,
        load_separate,
        measure_run,
        rescore,
    )
    from paretopath.jobs.exits import exits_run
    from paretopath.jobs.first_paths import sensitivity_run
    from paretopath.jobs.planning import SearchPlan, WeightsPlan, plan_search
    from paretopath.jobs.retraining.cluster import launch_retraining
    from paretopath.jobs.retraining.job import collect, retrain, retrain_tracked
    from paretopath.jobs.retraining.plan import PathResult, RetrainJob, plan_retraining
    from paretopath.jobs.retraining.status import RetrainStatus, collect_finished, statuses
    from paretopath.jobs.searching import make_front, save_report, search_run
    from paretopath.jobs.starting import started
    from paretopath.jobs.weights import prepare_weights
    from paretopath.jobs.worker import work_on

_HOMES = {
    "Draft": "drafting",
    "PathResult": "retraining.plan",
    "Rescored": "evaluation",
    "RetrainJob": "retraining.plan",
    "RetrainStatus": "retraining.status",
    "SearchPlan": "planning",
    "WeightsPlan": "planning",
    "collect": "retraining.job",
    "collect_finished": "retraining.status",
    "draft": "drafting",
    "evaluate_run": "evaluation",
    "exits_run": "exits",
    "launch_retraining": "retraining.cluster",
    "load_separate": "evaluation",
    "make_front": "searching",
    "measure_run": "evaluation",
    "plan_retraining": "retraining.plan",
    "plan_search": "planning",
    "prepare_weights": "weights",
    "rescore": "evaluation",
    "retrain": "retraining.job",
    "retrain_tracked": "retraining.job",
    "save_report": "searching",
    "search_run": "searching",
    "sensitivity_run": "first_paths",
    "started": "starting",
    "statuses": "retraining.status",
    "track_outcome": "browsing",
    "track_sensitivity": "browsing",
    "work_on": "worker",
    "write_recipe": "drafting",
}

__all__ = [
    "Draft",
    "PathResult",
    "Rescored",
    "RetrainJob",
    "RetrainStatus",
    "SearchPlan",
    "WeightsPlan",
    "collect",
    "collect_finished",
    "draft",
    "evaluate_run",
    "exits_run",
    "launch_retraining",
    "load_separate",
    "make_front",
    "measure_run",
    "plan_retraining",
    "plan_search",
    "prepare_weights",
    "rescore",
    "retrain",
    "retrain_tracked",
    "save_report",
    "search_run",
    "sensitivity_run",
    "started",
    "statuses",
    "track_outcome",
    "track_sensitivity",
    "work_on",
    "write_recipe",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
