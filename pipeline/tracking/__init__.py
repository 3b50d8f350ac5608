"""Weights & Biases: every search and retraining as a run, offline unless a key is configured.

A process of its own talks to W&B, fed through a bounded queue, so that nothing W&B does can stop or
slow a job: :mod:`~pipeline.tracking.tracker` is what jobs call, :mod:`~pipeline.tracking.session`
the process, :mod:`~pipeline.tracking.messages` what passes between them, and
:mod:`~pipeline.tracking.showing` what people browse there: the tables of
:mod:`~pipeline.tracking.charts` and the pictures of :mod:`~pipeline.tracking.figures`.
"""

from pipeline.tracking.charts import axis_name, plain_decisions
from pipeline.tracking.client import WandbTracker, WandbTracking, open_tracking
from pipeline.tracking.identity import forget_run
from pipeline.tracking.messages import Objective, RunKind
from pipeline.tracking.offline import unsynced_runs
from pipeline.tracking.tracker import NullTracker, NullTracking, Tracker, Tracking

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
