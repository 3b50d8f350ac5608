"""Weights & Biases: every search and retraining as a run, offline unless a key is configured.

A process of its own talks to W&B, fed through a bounded queue, so that nothing W&B does can stop or
slow a job: :mod:`~paretopath.showing.tracking.tracker` is what jobs call,
:mod:`~paretopath.showing.tracking.session` the process,
:mod:`~paretopath.showing.tracking.messages` what passes between them, and
:mod:`~paretopath.showing.tracking.showing` what people browse there: the tables of
:mod:`~paretopath.showing.tracking.charts` and the pictures of
:mod:`~paretopath.showing.tracking.figures`.
"""

from paretopath.showing.tracking.charts import axis_name, plain_decisions
from paretopath.showing.tracking.client import WandbTracker, WandbTracking, open_tracking
from paretopath.showing.tracking.identity import forget_run
from paretopath.showing.tracking.messages import Objective, RunKind
from paretopath.showing.tracking.offline import unsynced_runs
from paretopath.showing.tracking.tracker import NullTracker, NullTracking, Tracker, Tracking

__all__ = [
    "NullTracker",
    "NullTracking",
    "Objective",
    "RunKind",
    "Tracker",
    "Tracking",
    "WandbTracker",
    "WandbTracking",
    "axis_name",
    "forget_run",
    "open_tracking",
    "plain_decisions",
    "unsynced_runs",
]
