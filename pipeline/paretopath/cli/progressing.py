"""How far long work is, with the best so far."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Column

from paretopath.costs import cost_named
from paretopath.quantities import percent
from paretopath.search import SearchProgress
from paretopath.training.epoch import Epoch

PLAIN_SECONDS = 5.0  # between lines where the output is not a terminal


class Progressing:
    """A bar for each phase on a terminal; elsewhere plain lines, the first when a phase begins and
    then one every few seconds.

    Args:
        console: of standard error, so that standard output stays clean.
        title: of the main work, which :meth:`update` and :meth:`epoch` tell of.
    """

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self._shown: dict[str, tuple[float, str]] = {}  # by title: when, and the line
        self._tasks: dict[str, TaskID] = {}
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(table_column=Column(min_width=9)),  # the bar gives way first
                TimeElapsedColumn(table_column=Column(min_width=7)),
                TextColumn("{task.fields[best]}"),
                console=console,
            )

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._bar:
            self._bar.stop()

    def update(self, done: int, total: int, best: str) -> None:
        """Shows how far the main work is and the best so far; its end too."""
        self._show(self.title, done, total, best, is_due=done >= total)

    def phase(self, title: str, done: int, total: int) -> None:
        """Listens to the phases of a job."""
        self._show(title, done, total, "")

    def _show(self, title: str, done: int, total: int, best: str, *, is_due: bool = False) -> None:
        if self._bar:  # what was done before, or never began, leaves no line
            if title not in self._tasks:
                self._tasks[title] = self._bar.add_task(title, total=total, best=best)
            self._bar.update(self._tasks[title], completed=done, total=total, best=best)
            return
        when, before = self._shown.get(title, (0.0, ""))
        line = f"{title}: {done}/{total} {best}".rstrip() if total > 1 else title
        now = time.monotonic()
        if (is_due or not before or now - when >= PLAIN_SECONDS) and line != before:
            self._shown[title] = now, line
            self.console.print(line, highlight=False, soft_wrap=True)

    def search(self, progress: SearchProgress) -> None:
        """Listens to a search."""
        best = progress.best
        text = ""
        if best is not None and best.score is not None:
            cost = cost_named(progress.cost)
            spent = cost.phrase(cost.text(best.costs.get(cost.name)))
            text = f"best {percent(best.score.value)} at {spent}"
        if progress.stopped:
            text += f", {progress.stopped} stopped early"
        if progress.failed:
            text += f", {progress.failed} failed"
        is_due = progress.finished >= progress.trials
        self._show("search", progress.finished, progress.trials, text, is_due=is_due)
        for trial in progress.latest:
            if trial.failure:
                self.console.print(f"trial {trial.number} failed: {trial.failure}", style="yellow")

    def epoch(self, epoch: Epoch) -> None:
        """Listens to a training."""
        text = f"loss {epoch.loss:.3f}"
        if epoch.metrics:
            shown = ", ".join(percent(value) for value in list(epoch.metrics.values())[:4])
            text += f", validation {shown}"
        self.update(epoch.number, epoch.of, text)
