"""The jobs of a run: base weights, search, retraining, evaluation. Each resumes where it was
interrupted.

Lightning is imported by the functions that need it: it takes seconds, and most commands don't.
"""

from paretopath.jobs.browsing import track_outcome, track_sensitivity
from paretopath.jobs.drafting import Draft, draft, write_recipe
from paretopath.jobs.evaluation import Rescored, evaluate_run, load_separate, measure_run, rescore
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
