"""The job's side of the tracking: a queue, a pipe, and a process at its end that talks to W&B."""

import json
import logging
import os
import pickle
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front, TrialRecord
from paretopath.recipe import Tracking as TrackingSettings
from paretopath.showing.breakdown import Measured, Row
from paretopath.showing.report import UnitCost
from paretopath.showing.tracking.messages import (
    Close,
    Finish,
    Log,
    Message,
    Objective,
    Opening,
    RunKind,
    Show,
    ShowOutcome,
    Start,
    Summarize,
    Trials,
)
from paretopath.showing.tracking.mode import wanted_mode
from paretopath.showing.tracking.tracker import NullTracking, Tracking

PATIENCE_S = 5.0
PATIENCE_SHARE = 0.03
"""How long the end of a job waits for W&B: that share of its time, up to so many seconds. What
takes longer goes on in the background."""

LAST_WORDS_S = 12.0
"""How long it may wait at least where nothing goes on in the background."""

_QUEUED = 10_000
_log = logging.getLogger(__name__)


def open_tracking(
    run_dir: Path | str, settings: TrackingSettings, *, background: bool = True
) -> Tracking:
    """The tracking that a recipe asks for, in a run directory.

    ``auto`` is online where a key is configured and the server answers, else offline. The variables
    WANDB_MODE, WANDB_BASE_URL and so on hold as W&B documents them.

    Args:
        run_dir: the run directory.
        settings: of the recipe.
        background: whether what W&B has not taken when the job ends may go on by itself. A
            cluster ends all processes with the job, so there it is waited for a little longer.
    """
    mode = wanted_mode(settings.mode, os.environ)
    if mode == "disabled":
        return NullTracking()
    run_dir = Path(run_dir).absolute()
    opening = Opening(
        run_dir=run_dir,
        mode=mode,
        project=settings.project,
        entity=settings.entity,
        group=settings.group or run_dir.name,
        tags=tuple(settings.tags),
    )
    return WandbTracking(opening, least_s=0.0 if background else LAST_WORDS_S)


class WandbTracker:
    """One W&B run; made by :meth:`WandbTracking.start`."""

    def __init__(self, tracking: "WandbTracking", run: str) -> None:
        self._tracking = tracking
        self._run = run

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """See :class:`Tracker`, as for the rest."""
        self._tracking.send(Log(self._run, step, dict(values)))

    def trials(self, records: Sequence[TrialRecord], *, known: bool = False) -> None:
        """See :class:`Tracker`."""
        self._tracking.send(Trials(self._run, tuple(records), known))

    def summarize(self, values: Mapping[str, Any]) -> None:
        """See :class:`Tracker`."""
        self._tracking.send(Summarize(self._run, dict(values)))

    def show(
        self,
        front: Front,
        trials: Sequence[TrialRecord],
        *,
        unit_costs: Mapping[str, Sequence[UnitCost]] | None = None,
        kind_costs: Mapping[str, Sequence[Row]] | None = None,
        sensitivity: Sensitivity | None = None,
        pictures: Mapping[str, Any] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """See :class:`Tracker`."""
        self._tracking.send(
            Show(
                self._run,
                front,
                tuple(trials),
                dict(unit_costs or {}),
                dict(kind_costs or {}),
                sensitivity,
                pictures,
                _absolute(files),
            )
        )

    def show_outcome(
        self,
        front: Front,
        *,
        measured: Mapping[str, Measured],
        pictures: Mapping[str, Any] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """See :class:`Tracker`."""
        self._tracking.send(
            ShowOutcome(self._run, front, dict(measured), pictures, _absolute(files))
        )

    def finish(self, *, failed: bool = False) -> None:
        """See :class:`Tracker`."""
        self._tracking.send(Finish(self._run, failed))


def _environment() -> dict[str, str]:
    """Of the process: this one's, without the service that wandb may have started for it, which
    ends when this process does.
    """
    own = {name: value for name, value in os.environ.items() if name != "WANDB_SERVICE"}
    return own | {"PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}


def _absolute(files: Sequence[Path]) -> tuple[Path, ...]:
    return tuple(Path(file).absolute() for file in files)


class WandbTracking:
    """A process that talks to W&B, and a bounded queue to it.

    Attributes:
        process: that talks to W&B; None if it can't start.

    Args:
        opening: what the process has to know.
        command: of the process; its own module by default.
        patience_s: how long :meth:`close` may wait; less after a short job.
        least_s: what it may wait after any job.
    """

    def __init__(
        self,
        opening: Opening,
        *,
        command: Sequence[str] = (sys.executable, "-m", "paretopath.showing.tracking.session"),
        patience_s: float = PATIENCE_S,
        least_s: float = 0.0,
    ) -> None:
        self.process: subprocess.Popen[bytes] | None = None
        self._patience_s = patience_s
        self._least_s = least_s
        self._begun = time.monotonic()
        self._queue: queue.Queue[Message] = queue.Queue(_QUEUED)
        self._notes: list[str] = []
        self._closed = False
        self._off = False  # something failed, and was said
        self._done = threading.Event()
        try:
            self.process = subprocess.Popen(
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env=_environment(),
                start_new_session=True,  # a Ctrl-C is for the job; the process ends when that does
            )
        except OSError as error:
            self._done.set()
            self._turn_off(f"its process can't start: {error}")
            return
        for target, pipe in ((self._feed, self.process.stdin), (self._listen, self.process.stdout)):
            threading.Thread(target=target, args=(pipe,), daemon=True).start()
        self.send(opening)

    @property
    def notes(self) -> Sequence[str]:
        """See :class:`Tracking`, as for the rest."""
        return tuple(self._notes)

    def start(
        self,
        kind: RunKind,
        name: str,
        *,
        config: Mapping[str, Any],
        objective: Objective | None = None,
    ) -> WandbTracker:
        """See :class:`Tracking`."""
        self.send(Start(name, kind, dict(config), objective))
        return WandbTracker(self, name)

    def send(self, message: Message) -> None:
        """Queues a message; drops it where tracking is off or the process can't keep up."""
        if self._off or self._closed:
            return
        try:
            self._queue.put_nowait(message)
        except queue.Full:
            self._turn_off("it does not keep up")

    def close(self, *, failed: bool = False) -> None:
        """See :class:`Tracking`."""
        self.send(Close(failed))
        self._closed = True
        if self._off:
            return
        share = PATIENCE_SHARE * (time.monotonic() - self._begun)
        # what is not taken by then goes on by itself, and nobody has to do anything
        self._done.wait(max(self._least_s, min(self._patience_s, share)))

    def wait(self, timeout_s: float) -> bool:
        """Waits for the process to end, after :meth:`close`. Returns whether it has."""
        return self._done.wait(timeout_s)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close(failed=kind is not None)

    def _feed(self, pipe: IO[bytes]) -> None:
        """Thread: writes messages into the process's pipe, which may block."""
        while True:
            message = self._queue.get()
            try:
                data = pickle.dumps(message)
            except (pickle.PicklingError, TypeError, AttributeError) as error:
                self._turn_off(f"{type(error).__name__}: {error}")
                return
            try:
                pipe.write(data)
                pipe.flush()
                if isinstance(message, Close):
                    pipe.close()
                    return
            except OSError:
                return  # the process is gone, which the other thread reports

    def _listen(self, pipe: IO[bytes]) -> None:
        """Thread: takes notes and warnings from the process until it ends."""
        for line in pipe:
            kind, text = json.loads(line)
            self._notes.append(text)
            if kind == "warning":
                _log.warning("%s", text)
        assert self.process
        self.process.wait()
        if self.process.returncode or not self._closed:
            self._turn_off("its process ended early")
        self._done.set()

    def _turn_off(self, reason: str) -> None:
        if not self._off:
            self._off = True
            self._notes.append(f"W&B tracking is off: {reason}")
            _log.warning("W&B tracking is off: %s", reason)
