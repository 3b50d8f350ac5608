"""What a retraining is: its order, its folder, and what it leaves there."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paretopath.errors import InvalidValueError, RunDirectoryError
from paretopath.files import is_altered, write_atomically
from paretopath.front import Retrained, select
from paretopath.jobs.retraining.progress import read_json
from paretopath.paths import ExecutionPath
from paretopath.recipe import RetrainSettings
from paretopath.run import Run, RunDirectory, build_space
from paretopath.showing.tracking import forget_run
from paretopath.tasks.task import Score

if TYPE_CHECKING:
    from paretopath.training.interruption import Signals
    from paretopath.training.trainer import Processes


MODES = ("shared", "separate", "closed_form")
"""All paths in one elastic model; one plain model a path; each path re-solved, nothing trained."""


@dataclass(frozen=True)
class RetrainJob:
    """One retraining, as a cluster would run it: it needs the run directory and nothing else.

    Attributes:
        directory: the run's.
        mode: one of :data:`MODES`.
        paths: what it trains; exactly one in mode ``separate``.
    """

    directory: Path
    mode: str
    paths: tuple[ExecutionPath, ...]

    @property
    def name(self) -> str:
        """For people and W&B: the mode, and the path's id if it is about one."""
        return f"{self.mode}-{self.paths[0].id}" if self.mode == "separate" else self.mode

    @property
    def folder(self) -> Path:
        """Where its files are."""
        path_id = self.paths[0].id if self.mode == "separate" else None
        return RunDirectory(self.directory).retrained_dir(self.mode, path_id)

    def tracked(self, full: ExecutionPath) -> dict[str, ExecutionPath]:
        """The paths that it measures, by the name of the run that tracks each.

        Shared training measures the ``full`` path too.
        """
        also = [full] if self.mode == "shared" else []
        return {f"{self.mode}-{path.id}": path for path in dict.fromkeys([*self.paths, *also])}

    def order(self, settings: RetrainSettings) -> dict[str, Any]:
        """What is asked for: a training of another order begins anew."""
        # how often one looks changes nothing
        plain = settings.model_dump(mode="json", exclude={"validate_every"})
        if self.mode == "closed_form":  # nothing is trained
            plain = {name: plain[name] for name in ("images",)}
        else:
            del plain["images"]
            if self.mode == "shared" or settings.start == "repaired":
                del plain["start"]  # files of before don't say how they started
            if settings.exit_weight == 0:
                del plain["exit_weight"]
        return {"paths": [dict(path) for path in self.paths], "settings": plain}


@dataclass(frozen=True)
class Part:
    """The part of one process in a job that several processes may share.

    Attributes:
        processes: that train together; one alone if None.
        signals: at which it stops; None for a training that people watch.
    """

    processes: "Processes | None" = None
    signals: "Signals | None" = None

    @property
    def is_first(self) -> bool:
        """Whether this process writes, measures and tracks."""
        return self.processes is None or self.processes.rank == 0

    @property
    def share(self) -> tuple[int, int]:
        """What ``DataSplits.loader`` takes."""
        return self.processes.share if self.processes else (0, 1)


WHOLE = Part()


@dataclass(frozen=True)
class PathResult:
    """What a retraining made of one path."""

    path: ExecutionPath
    validation: Score
    test: Score

    def retrained(self) -> Retrained:
        """The same as a field of a front's point."""
        return Retrained(
            accuracy=self.validation.value,
            error=self.validation.error,
            test_accuracy=self.test.value,
            test_error=self.test.error,
        )


def plan_retraining(run: Run, *, selection: str, mode: str) -> list[RetrainJob]:
    """The jobs that retrain a selection of the front: one a path in mode ``separate``, else one."""
    if mode not in MODES:
        raise InvalidValueError(f"mode must be {' or '.join(MODES)}, but got {mode!r}")
    space = build_space(run.recipe)
    paths = tuple(space.canonical(point.path) for point in select(run.front(), selection))
    if mode == "separate":
        return [RetrainJob(run.directory, mode, (path,)) for path in paths]
    return [RetrainJob(run.directory, mode, paths)]


def prepare(job: RetrainJob, settings: RetrainSettings, full: ExecutionPath) -> None:
    """Clears a job's folder, and the tracked runs, of a training that was of another order.

    Args:
        job: whose.
        settings: that are asked for now.
        full: the full path.
    """
    folder, order = job.folder, job.order(settings)
    if read_json(folder / "order.json") != order:
        shutil.rmtree(folder, ignore_errors=True)
        for name in job.tracked(full):
            forget_run(job.directory, name)
        write_atomically(folder / "order.json", json.dumps(order))


def finished(job: RetrainJob, settings: RetrainSettings) -> list[PathResult] | None:
    """What a job left if it was finished with the same settings before; else None.

    Raises:
        RunDirectoryError: its result was altered.
    """
    found = read_json(job.folder / "result.json")
    if found is None or found["order"] != job.order(settings):
        return None
    if is_altered(found):
        raise RunDirectoryError(
            f"{job.folder / 'result.json'} is refused: it was altered, its SHA-256 is not the one "
            f"in it"
        )
    return [_result(entry) for entry in found["results"]]


def _result(entry: Mapping[str, Any]) -> PathResult:
    path = ExecutionPath(entry["path"])
    return PathResult(path, Score(**entry["validation"]), Score(**entry["test"]))
