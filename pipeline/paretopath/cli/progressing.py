"""How far long work is, with the best so far."""

import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from paretopath.quantities import percent, quantity
from paretopath.search import SearchProgress
from paretopath.training.epoch import Epoch

PLAIN_SECONDS = 5.0  # between lines where the output is not a terminal


class Progressing:
    """One line that is redrawn on a terminal, or a plain line every few seconds elsewhere.

    Args:
        console: of standard error, so that standard output stays clean.
        title: what is under way.
    """

    def __init__(self, console: Console, title: str) -> None:
        self.console = console
        self.title = title
        self._shown = -PLAIN_SECONDS
        self._line = ""
        self._bar: Progress | None = None
        if console.is_terminal:
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(bar_width=30),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("{task.fields[best]}"),
                console=console,
            )
            self._task = self._bar.add_task(title, total=None, best="")

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
            task = self._bar.tasks[0]  # what was done before, or never began, leaves no line
            self._bar.update(task.id, visible=task.total is not None)
            self._bar.stop()

    def update(self, done: int, total: int, best: str) -> None:
        """Shows how far it is and the best so far."""
        if self._bar:
            self._bar.update(self._task, completed=done, total=total, best=best)
            return
        line = f"{self.title}: {done}/{total} {best}".rstrip()
        is_due = done >= total or time.monotonic() - self._shown >= PLAIN_SECONDS
        if is_due and line != self._line:
            self._shown, self._line = time.monotonic(), line
            self.console.print(line, highlight=False, soft_wrap=True)

    def search(self, progress: SearchProgress) -> None:
        """Listens to a search."""
        best = progress.best
        text = ""
        if best is not None and best.score is not None:
            text = (
                f"best {percent(best.score.value)} at {quantity(best.costs.get('energy_mj'), 'mJ')}"
            )
        if progress.stopped:
            text += f", {progress.stopped} stopped early"
        if progress.failed:
            text += f", {progress.failed} failed"
        self.update(progress.finished, progress.trials, text)
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
