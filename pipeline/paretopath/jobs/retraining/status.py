"""How retrainings are, by what SLURM says and by what they left in their folders."""

import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from paretopath.jobs.retraining.job import collect
from paretopath.jobs.retraining.plan import MODES, RetrainJob, finished
from paretopath.jobs.retraining.progress import Progress, read_json
from paretopath.launch import Job, JobState, State, states
from paretopath.paths import ExecutionPath
from paretopath.run import Run
from paretopath.training.epoch import Epoch

JOB_FILE = "job.json"
"""In a retraining's folder: the job that runs it."""


@dataclass(frozen=True)
class RetrainStatus:
    """How the retraining of some paths is.

    Attributes:
        job: what is trained.
        state: ``new``: not started. ``interrupted``: it ran in the foreground, and that process is
            gone; the same command goes on from there.
        reason: one line: why it failed or waits.
        progress: epochs and attempts; None before the first attempt.
        launched: as a job of a cluster or in the background; None if it ran in the foreground.
        restarts: how often it was put back into the queue.
    """

    job: RetrainJob
    state: State | Literal["new", "interrupted"]
    reason: str
    progress: Progress | None
    launched: Job | None
    restarts: int = 0

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen by itself."""
        return self.state in ("new", "done", "failed", "interrupted")

    @property
    def epoch(self) -> Epoch | None:
        """The last one that is done."""
        return self.progress.epochs[-1] if self.progress and self.progress.epochs else None

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        epoch = self.epoch
        return {
            "name": self.job.name,
            "mode": self.job.mode,
            "paths": [path.id for path in self.job.paths],
            "state": self.state,
            "reason": self.reason,
            "epoch": epoch.number if epoch else 0,
            "of": self.progress.of if self.progress else None,
            "loss": epoch.loss if epoch and epoch.loss == epoch.loss else None,
            "metrics": dict(self.progress.metrics) if self.progress else {},
            "restarts": self.restarts,
            "attempts": len(self.progress.attempts) if self.progress else 0,
            "where": self.launched.where if self.launched else "foreground",
            "id": self.launched.id if self.launched else None,
            "log": str(self.launched.log_file) if self.launched else None,
        }


def statuses(run: Run, jobs: Sequence[RetrainJob] | None = None) -> list[RetrainStatus]:
    """How retrainings are, in their order; SLURM is asked once for all of them.

    Args:
        run: the run.
        jobs: which; if None, every one that was begun with the recipe's present settings.
    """
    if jobs is None:
        jobs = _begun(run)
    launched = [_launched(run, job) for job in jobs]
    asked = iter(states([entry for entry in launched if entry is not None]))
    return [
        _status(run, job, entry, next(asked) if entry is not None else None)
        for job, entry in zip(jobs, launched, strict=True)
    ]


def collect_finished(run: Run, found: Sequence[RetrainStatus]) -> bool:
    """Puts the results of finished retrainings onto the front, once.

    Returns whether there was something new.
    """
    changed = False
    for mode in MODES:
        known = run.front().everyone
        results = [
            result
            for one in found
            if one.state == "done" and one.job.mode == mode
            for result in finished(one.job, run.recipe.retrain) or []
        ]
        new = [r for r in results if known[r.path.id].retrained.get(mode) != r.retrained()]
        if new:
            collect(run, mode, results)
            changed = True
    return changed


def _begun(run: Run) -> list[RetrainJob]:
    jobs = []
    for file in sorted((run.directory / "retrained").glob("**/order.json")):
        order = read_json(file)
        if order is None:
            continue
        mode = file.relative_to(run.directory / "retrained").parts[0]
        paths = tuple(ExecutionPath(path) for path in order["paths"])
        job = RetrainJob(run.directory, mode, paths)
        if job.order(run.recipe.retrain) == order:
            jobs.append(job)
    return jobs


def _launched(run: Run, job: RetrainJob) -> Job | None:
    """The job that runs a retraining; None if none was started for what is asked now."""
    folder = job.folder
    found = read_json(folder / JOB_FILE)
    if found is None or read_json(folder / "order.json") != job.order(run.recipe.retrain):
        return None
    return Job.from_json(found)


def _status(
    run: Run, job: RetrainJob, launched: Job | None, state: JobState | None
) -> RetrainStatus:
    folder = job.folder
    asked = read_json(folder / "order.json") == job.order(run.recipe.retrain)
    progress = Progress.load(folder) if asked else None
    if finished(job, run.recipe.retrain) is not None:
        # SLURM forgets a job some minutes after its end
        seen = len(progress.attempts) - 1 if progress and launched else 0
        restarts = max(seen, state.restarts if state else 0)
        return RetrainStatus(job, "done", "", progress, launched, restarts)
    if launched is None or state is None:
        if progress is None or not progress.attempts:
            return RetrainStatus(job, "new", "", progress, None)
        last = progress.attempts[-1]
        if not last.ended and last.host == socket.gethostname() and _runs(last.pid):
            return RetrainStatus(job, "running", "", progress, None)
        return RetrainStatus(job, "interrupted", last.ended, progress, None)
    if state.state == "done":
        state = JobState("failed", "it ended without a result", state.restarts)
    told = progress.attempts[-1].ended if progress and progress.attempts else ""
    reason = state.reason
    if state.state == "failed" and told.startswith("failed: "):
        reason = told.removeprefix("failed: ")
    return RetrainStatus(job, state.state, reason, progress, launched, state.restarts)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return True
