"""The process that talks to W&B. Run as ``python -m paretopath.showing.tracking.session``, fed by a
tracker.

It alone imports wandb: whatever that does (waits for a server, fills its threads, fails), the job
goes on. Online runs that can't begin become offline ones. When the job ends, or dies, so does this
process, at the latest after :data:`LAST_S` seconds; what W&B has on disk by then can be uploaded
later.
"""

import json
import os
import pickle
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

from paretopath.front import Archive, TrialRecord
from paretopath.showing.tracking.identity import Identity, load_identity, save_identity
from paretopath.showing.tracking.messages import (
    Close,
    Log,
    Message,
    Objective,
    Opening,
    RunMessage,
    Show,
    ShowOutcome,
    Start,
    Summarize,
    Trials,
)
from paretopath.showing.tracking.mode import answers, has_key
from paretopath.showing.tracking.offline import next_offline_step
from paretopath.showing.tracking.showing import plain, show_front, show_outcome

PROBE_S = 5.0  # for a server to say anything at all
FINISH_S = 60.0  # for uploads after the last message
LAST_S = 120.0  # for everything after the end of the job

Notify = Callable[[str, str], None]
"""Tells the job something: (``note`` or ``warning``, text)."""


@dataclass
class _Run:
    """A W&B run that is open.

    Attributes:
        handle: wandb's.
        identity: its id, and the first step not yet logged.
        objective: of a search.
        archive: the best trials so far, for the hypervolume.
        best: the best accuracy so far.
        failed: how many trials failed.
        stopped: how many were stopped early.
    """

    handle: Any
    identity: Identity
    objective: Objective | None
    archive: Archive | None = None
    best: float = 0.0
    failed: int = 0
    stopped: int = 0


@dataclass
class Session:
    """The runs of one job.

    Attributes:
        opening: where and how.
        notify: tells the job.
        mode: ``online`` or ``offline``; None until the first run begins.
        runs: those that are open, by name.
        folders: of the offline runs so far.
    """

    opening: Opening
    notify: Notify
    mode: Literal["online", "offline"] | None = None
    runs: dict[str, _Run] = field(default_factory=dict)
    folders: list[Path] = field(default_factory=list)

    def handle(self, message: RunMessage) -> None:
        """Does what a message asks."""
        if isinstance(message, Start):
            self.runs[message.run] = self._start(message)
            return
        run = self.runs[message.run]
        if isinstance(message, Log):
            if message.step >= run.identity.next_step:
                self._log(message.run, run, message.values, message.step)
        elif isinstance(message, Trials):
            for record in message.records:
                self._trial(message.run, run, record, known=message.known)
        elif isinstance(message, Summarize):
            run.handle.summary.update(plain(message.values))
        elif isinstance(message, Show):
            show_front(run.handle, message, self.opening.group, step=run.identity.next_step)
            self._advance(message.run, run, run.identity.next_step)
        elif isinstance(message, ShowOutcome):
            show_outcome(run.handle, message, self.opening.group, step=run.identity.next_step)
            self._advance(message.run, run, run.identity.next_step)
        else:
            self._finish(message.run, failed=message.failed)

    def close(self, *, failed: bool) -> None:
        """Ends all runs."""
        for name in list(self.runs):
            self._finish(name, failed=failed)
        if self.folders:
            parent = self.folders[0].parent
            count = len(self.folders)
            self.notify(
                "note",
                f"W&B: {count} offline run{'s' if count > 1 else ''} in {parent}; "
                f"upload: wandb sync {parent}/offline-run-*",
            )

    def _start(self, start: Start) -> _Run:
        import wandb

        # what is uploaded later stays with the run, in place of the user's home
        os.environ.setdefault("WANDB_DATA_DIR", str(self.opening.run_dir / "wandb" / "data"))
        # W&B's telemetry about itself holds up its end where the server hangs
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
        if self.mode is None:
            self.mode = self._resolve_mode(wandb.setup().settings.base_url)
        identity = load_identity(self.opening.run_dir, start.run)
        try:
            handle = self._init(start, identity)
        except Exception as error:
            if self.mode == "offline":
                raise
            self.mode = "offline"
            self.notify(
                "warning", f"W&B can't be reached, so runs are kept offline: {_line(error)}"
            )
            wandb.teardown()  # its service still holds the run that could not begin
            handle = self._init(start, identity)
        identity = Identity(identity.id, self._next_step(start, identity, handle))
        if self.mode == "offline":
            self.folders.append(Path(handle.dir).parent)
        else:
            self.notify("note", f"W&B: {handle.url}")
        _warm_up()
        archive = None
        if start.objective:
            handle.define_metric("*", step_metric="trial")
            archive = Archive((0.0, start.objective.full_cost))
        return _Run(handle, identity, start.objective, archive)

    def _next_step(self, start: Start, identity: Identity, handle: Any) -> int:
        """The first step that W&B has not: where a job was killed, less than it was told.

        A search tells its steps from its trials, so what was told counts.
        """
        if self.mode == "online":
            told = identity.next_step
            resumed = handle.resumed and start.objective is None
            return int(handle.step) if resumed else max(told, int(handle.step))
        if start.objective is None:
            found = next_offline_step(self.opening.run_dir, identity.id)
            return identity.next_step if found is None else found
        return identity.next_step

    def _resolve_mode(self, server: str) -> Literal["online", "offline"]:
        wanted = self.opening.mode
        if wanted == "auto" and has_key(server, os.environ, Path.home()):
            wanted = "online"
        if wanted != "online":
            return "offline"
        if not answers(server, timeout_s=PROBE_S):
            self.notify("warning", f"W&B does not answer at {server}, so runs are kept offline")
            return "offline"
        return "online"

    def _init(self, start: Start, identity: Identity) -> Any:
        import wandb

        settings = wandb.Settings(
            console="off",
            silent=True,
            program="paretopath",
            disable_git=True,
            disable_job_creation=True,
            init_timeout=self.opening.init_s,
            finish_timeout=FINISH_S,
            x_transaction_log_flush_interval=1.0,
        )
        return wandb.init(
            project=self.opening.project,
            entity=self.opening.entity,
            group=self.opening.group,
            tags=list(self.opening.tags),
            job_type=start.kind,
            name=f"{self.opening.group} {start.run}",
            id=identity.id,
            resume="allow",
            mode=self.mode,
            dir=str(self.opening.run_dir),
            config=plain(start.config),
            reinit="create_new",
            settings=settings,
        )

    def _log(self, name: str, run: _Run, values: Mapping[str, Any], step: int) -> None:
        run.handle.log(plain(values), step=step, commit=True)
        if run.objective:  # not worth a file: a search's next step follows from its trials
            run.identity = run.identity.advanced(step)
        else:
            self._advance(name, run, step)

    def _advance(self, name: str, run: _Run, step: int) -> None:
        run.identity = run.identity.advanced(step)
        save_identity(self.opening.run_dir, name, run.identity)

    def _trial(self, name: str, run: _Run, trial: TrialRecord, *, known: bool) -> None:
        run.failed += trial.state == "failed"
        run.stopped += trial.state == "stopped"
        if trial.state == "complete" and trial.accuracy is not None:
            run.best = max(run.best, trial.accuracy)
            if run.objective and run.archive and run.objective.cost in trial.costs:
                run.archive.add(trial.accuracy, trial.costs[run.objective.cost])
        step = run.identity.next_step
        if known:  # one step a trial, in whatever order they finished
            run.identity = run.identity.advanced(step)
            return
        values: dict[str, Any] = {"trial": trial.number, "state": trial.state}
        values |= {"failed": run.failed, "stopped": run.stopped, "samples": trial.samples}
        values |= {str(name): cost for name, cost in trial.costs.items()}
        if trial.accuracy is not None:
            values |= {"accuracy": trial.accuracy, "accuracy_error": trial.accuracy_error}
        if run.archive and run.objective:
            values["hypervolume"] = run.archive.hypervolume / run.objective.full_cost
            values["best_accuracy"] = run.best
        self._log(name, run, values, step)

    def _finish(self, name: str, *, failed: bool) -> None:
        self.runs.pop(name).handle.finish(exit_code=int(failed))


def _warm_up() -> None:
    """Imports what tables and figures need while the job is busy, not when it waits to end."""
    import plotly.graph_objects as go
    import wandb

    wandb.Table(columns=["column"], data=[[1]])
    go.Figure().add_scatter(x=[1], y=[1], marker={"size": 1}, error_y={"array": [1]})


def _line(error: BaseException) -> str:
    """An error on one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())


def _messages(pipe: IO[bytes]) -> Iterator[Message]:
    """Messages until the pipe ends."""
    while True:
        try:
            yield pickle.load(pipe)
        except EOFError:
            return


def serve(pipe: IO[bytes], notify: Notify) -> None:
    """Handles messages until the last one, or until the job that sends them is gone.

    The first thing that fails ends the tracking, with one warning; what comes after is dropped.
    """
    messages = _messages(pipe)
    session: Session | None = None
    failed = True
    try:
        for message in messages:
            if isinstance(message, Opening):
                session = Session(message, notify)
            elif isinstance(message, Close):
                failed = message.failed
            elif session:
                session.handle(message)
    except Exception as error:
        notify("warning", f"W&B tracking is off: {_line(error)}")
        for _ in messages:
            pass
    try:
        if session:
            session.close(failed=failed)
    except Exception as error:
        notify("warning", f"W&B may lack the end of a run: {_line(error)}")


def _outlive(parent: int) -> None:
    """Thread: ends this process, wherever it hangs, some time after the job's has ended."""
    while os.getppid() == parent:
        time.sleep(1.0)
    time.sleep(LAST_S)
    os._exit(1)


def main() -> None:
    """Serves the pipe that is standard input, answering on standard output."""
    parent = os.getppid()
    threading.Thread(target=_outlive, args=(parent,), daemon=True).start()
    # the job ends this process, by closing the pipe: signals to its group are for the job
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(5)  # the job goes first
    answer = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print is no answer

    def notify(kind: str, text: str) -> None:
        try:
            answer.write(json.dumps([kind, text]) + "\n")
        except OSError:
            pass  # the job is gone: nobody is left to be told

    serve(sys.stdin.buffer, notify)
    os._exit(0)  # W&B's own exit hooks wait for servers that hang


if __name__ == "__main__":
    main()
