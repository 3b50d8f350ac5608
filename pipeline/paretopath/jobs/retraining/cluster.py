"""Retraining as jobs of a cluster: started once, and what each of their tasks does."""

import json
import logging
import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from paretopath.files import write_atomically
from paretopath.jobs.retraining.job import retrain_tracked
from paretopath.jobs.retraining.plan import Part, RetrainJob, prepare
from paretopath.jobs.retraining.status import JOB_FILE, RetrainStatus, statuses
from paretopath.launch import Call, is_this_job_running, launch, requeue_this_job
from paretopath.paths import ExecutionPath
from paretopath.recipe import Launch
from paretopath.run import Run
from paretopath.showing.tracking import NullTracking, open_tracking
from paretopath.training.epoch import Epoch

if TYPE_CHECKING:
    from paretopath.training.trainer import Processes

_log = logging.getLogger(__name__)


def launch_retraining(run: Run, planned: Sequence[RetrainJob]) -> list[RetrainStatus]:
    """Starts what was not started, as SLURM jobs: an array where there are several.

    What is finished, and what waits or runs already, is left alone; what failed starts again, from
    its last checkpoint.

    Raises:
        LaunchError: SLURM is not there, or refuses the jobs.
    """
    new = [s.job for s in statuses(run, planned) if s.state in ("new", "failed", "interrupted")]
    if new:
        for job in new:
            prepare(job, run.recipe.retrain, run.front().full.path)
        calls = [
            Call(
                run_retraining,
                (str(run.directory.absolute()), job.mode, [dict(path) for path in job.paths]),
            )
            for job in new
        ]
        started = launch(
            calls,
            run.recipe.launch,
            folder=run.directory / "jobs" / "retrain",
            name=f"retrain-{run.recipe.name}",
            where="slurm",
        )
        for job, entry in zip(new, started, strict=True):
            write_atomically(job.folder / JOB_FILE, json.dumps(entry.to_json()) + "\n")
    return statuses(run, planned)


def run_retraining(directory: str, mode: str, paths: Sequence[Mapping[str, Any]]) -> None:
    """What each task of a retraining's job does.

    Args:
        directory: the run's.
        mode: of the retraining.
        paths: decisions of each path that is trained.

    Raises:
        SystemExit: it was told to stop, and waits in the queue to go on.
    """
    from paretopath.training.interruption import Interrupted, Signals

    if not logging.getLogger().handlers:
        logging.basicConfig(format="%(asctime)s %(message)s")
    logging.getLogger("paretopath").setLevel(logging.INFO)
    recipe_launch = Run.open(directory, device="cpu").recipe.launch
    processes = this_process(recipe_launch)
    device = f"cuda:{processes.local_rank}" if recipe_launch.gpus_per_node else "cpu"
    run = Run.open(directory, device=device)
    job = RetrainJob(run.directory, mode, tuple(ExecutionPath(path) for path in paths))
    part = Part(processes, Signals())
    tracking = (
        open_tracking(directory, run.recipe.tracking, background=False)
        if part.is_first
        else NullTracking()
    )
    try:
        with tracking:
            retrain_tracked(run, job, tracking, on_epoch=_say if part.is_first else None, part=part)
    except Interrupted as stop:
        if part.is_first:
            _log.info("%s", stop)
            if stop.cause == "time limit" or is_this_job_running():
                requeue_this_job()
        raise SystemExit(0) from None


def this_process(settings: Launch) -> "Processes":
    """This task among those of its job, by SLURM's variables."""
    from paretopath.training.trainer import Processes

    return Processes(
        rank=int(os.environ["SLURM_PROCID"]),
        local_rank=int(os.environ["SLURM_LOCALID"]),
        nodes=settings.nodes,
        per_node=settings.tasks,
        strategy=settings.strategy,
        on_slurm=True,
    )


def _say(epoch: Epoch) -> None:
    """A line of the job's log."""
    shown = "".join(f", {path} {value:.4f}" for path, value in epoch.metrics.items())
    _log.info("epoch %d of %d, loss %.4f%s", epoch.number, epoch.of, epoch.loss, shown)
