"""A run's search by several workers: started here or on a cluster, followed from here."""

import math
import os
import secrets
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import torch

from paretopath.errors import RunDirectoryError
from paretopath.jobs.worker import search_settings, work_on
from paretopath.launch import Call, Job, cancel, launch, states
from paretopath.progress import PhaseListener, unheard
from paretopath.run import Parts, Run, keep_table
from paretopath.search import SearchProgress
from paretopath.search.candidates import Problem
from paretopath.search.storage import StudyStorage, exclusive, has_study, open_storage
from paretopath.search.workers import bury, is_shared, open_shared, watch

_COMMAND = (sys.executable, "-c", "from paretopath.cli.app import main; main()", "worker")
SAMPLED = 256  # paths priced before workers start: most forms of most units
_END_SECONDS = 30.0  # for workers to record what they have when they are asked to leave
_ASK_SECONDS = 5.0  # between questions to SLURM
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def wants_workers(run: Run, where: str) -> bool:
    """Whether a run's search is one that workers share: asked for, or begun so."""
    if run.recipe.search.workers > 1 or where == "slurm":
        return True
    return has_study(run.directory) and is_shared(open_storage(run.directory))


def share_search(
    run: Run,
    parts: Parts,
    *,
    where: str,
    on_progress: Callable[[SearchProgress], None] | None = None,
    on_phase: PhaseListener = unheard,
) -> None:
    """Starts a run's workers and follows them until its search has all its trials.

    Workers may also join from elsewhere. The search ends as long as one of those that were started
    here stays alive; the others may die.

    Args:
        run: with its weights.
        parts: what its recipe describes.
        where: ``local``: processes of this machine, each with its share of the cores and, in turn,
            a GPU; ``slurm``: an array of jobs.
        on_progress: hears of results as they are recorded.
        on_phase: hears of what comes before them.

    Raises:
        RunDirectoryError: the workers ended before the search did, or this run is already searched
            from here.
        LaunchError: SLURM takes no jobs.
    """
    settings = search_settings(run, parts, on_phase=on_phase)
    problem = Problem(parts.searched, parts.pricer, settings.cost, settings.budgets)
    with exclusive(run.directory):
        storage = open_storage(run.directory, run.recipe.search.storage)
        record = open_shared(problem, settings, storage)
        count = min(run.recipe.search.workers, max(1, settings.trials - record.finished))
        if record.missing(settings.trials) <= 0 and not record.first(settings.trials):
            return
        keep_table(parts.table, run.costs_file, sampled=SAMPLED)
        started = _Array(run, count) if where == "slurm" else _Processes(run, count, storage)
        with started as workers:
            watch(
                record, settings.trials, on_progress=on_progress, is_alive=lambda: workers.is_alive
            )
        if record.first(settings.trials) and not workers.ended_well:
            raise RunDirectoryError(
                f"all workers ended with {record.finished} of {settings.trials} trials done; "
                f"the same command goes on. {workers.last_words()}"
            )


@dataclass(frozen=True)
class _Child:
    name: str
    process: subprocess.Popen[bytes]
    log: Path


class _Processes:
    """Workers on this machine."""

    def __init__(self, run: Run, count: int, storage: StudyStorage) -> None:
        self._run = run
        self._count = count
        self._storage = storage
        self._children: list[_Child] = []
        self._buried: set[str] = set()

    def __enter__(self) -> Self:
        folder = self._run.directory / "workers"
        folder.mkdir(exist_ok=True)
        token = secrets.token_hex(3)
        options = ("--device", self._run.device.type, "--parent", str(os.getpid()))
        for i in range(self._count):
            name = f"{socket.gethostname()}-{token}-{i}"
            log = folder / f"{name}.log"
            with log.open("wb") as file:
                process = subprocess.Popen(
                    [*_COMMAND, str(self._run.directory), *options, "--name", name],
                    env={**os.environ, **share_of_machine(i, self._count, os.environ)},
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=file,
                )
            self._children.append(_Child(name, process, log))
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Waits for the workers; if this process is interrupted, asks them to leave."""
        for child in self._children:
            if kind is not None and child.process.poll() is None:
                child.process.send_signal(signal.SIGTERM)
        for child in self._children:
            try:
                child.process.wait(_END_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
                child.process.wait()

    @property
    def is_alive(self) -> bool:
        """Whether a worker is at work; the trials of those that died go to others at once."""
        for child in self._children:
            if child.process.poll() is not None and child.name not in self._buried:
                bury(self._storage, child.name)
                self._buried.add(child.name)
        return len(self._buried) < len(self._children)

    @property
    def ended_well(self) -> bool:
        """Whether a worker found that nothing is left to do."""
        return any(child.process.returncode == 0 for child in self._children)

    def last_words(self) -> str:
        """Why a worker ended."""
        for child in self._children:
            lines = child.log.read_text(errors="replace").strip().splitlines()
            if child.process.returncode and lines:
                return f"One said: {lines[-1]} ({child.log})"
        code = self._children[0].process.returncode
        return f"One ended with status {code} ({self._children[0].log})"


class _Array:
    """Workers as jobs of a SLURM array."""

    def __init__(self, run: Run, count: int) -> None:
        self._run = run
        self._count = count
        self._jobs: list[Job] = []
        self._asked = (-math.inf, True)  # when SLURM was asked last, and what it said

    def __enter__(self) -> Self:
        call = Call(join_search, (str(self._run.directory.absolute()),))
        self._jobs = launch(
            [call] * self._count,
            self._run.recipe.launch,
            folder=self._run.directory / "workers",
            name=f"{self._run.recipe.name}-search",
            where="slurm",
        )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            cancel(self._jobs)

    @property
    def is_alive(self) -> bool:
        """Whether a job has not ended; SLURM is not asked at every look."""
        if time.monotonic() - self._asked[0] > _ASK_SECONDS:
            alive = not all(state.has_ended for state in states(self._jobs))
            self._asked = time.monotonic(), alive
        return self._asked[1]

    @property
    def ended_well(self) -> bool:
        """Whether a worker found that nothing is left to do."""
        return any(state.state == "done" for state in states(self._jobs))

    def last_words(self) -> str:
        """Why a job ended."""
        reasons = [state.reason for state in states(self._jobs) if state.reason]
        said = f"One said: {reasons[0]} " if reasons else ""
        return f"{said}({self._jobs[0].log_file})"


def join_search(directory: str) -> int:
    """A task of a job: works on a run directory; how many trials it evaluated."""
    gpus = torch.cuda.device_count()
    # tasks of a node may all see all of its GPUs
    task = int(os.environ.get("SLURM_LOCALID", 0))
    return work_on(Run.open(directory, device=f"cuda:{task % gpus}" if gpus else None))


def share_of_machine(index: int, count: int, environment: Mapping[str, str]) -> dict[str, str]:
    """Environment variables of one of several workers: its cores, and a GPU in turn.

    Args:
        index: of the worker, from 0.
        count: of workers on this machine.
        environment: of this process; threads that it sets stay, and GPUs that it hides are left
            out.
    """
    cores = len(os.sched_getaffinity(0))
    threads = str(max(1, cores // count))
    share = {name: threads for name in _THREADS if name not in environment}
    gpus = torch.cuda.device_count()
    if gpus:
        visible = environment.get("CUDA_VISIBLE_DEVICES")
        names = visible.split(",") if visible else [str(gpu) for gpu in range(gpus)]
        share["CUDA_VISIBLE_DEVICES"] = names[index % len(names)]
    return share
