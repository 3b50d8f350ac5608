"""What a person sees in a terminal: quantities with their units, tables, and progress with the best
so far.
"""

import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front, Point, select
from paretopath.jobs import Rescored, RetrainStatus
from paretopath.paths import ExecutionPath
from paretopath.search import SearchProgress
from paretopath.showing.breakdown import QUANTITIES
from paretopath.showing.measure import Comparison
from paretopath.showing.profile import Profile
from paretopath.training.epoch import Epoch

ROWS = 24  # of a front that was not asked for by itself
PLAIN_SECONDS = 5.0  # between lines where the output is not a terminal

_PREFIXES = ((1e9, "G"), (1e6, "M"), (1e3, "k"), (1.0, ""), (1e-3, "m"), (1e-6, "µ"), (1e-9, "n"))


def quantity(value: float | None, unit: str) -> str:
    """A number with three significant digits and an SI prefix: ``12.3 µJ``; ``–`` for None.

    Args:
        value: in ``unit``.
        unit: ``mJ`` and ``ms`` count as thousandths of J and s; any other is taken as it is.
    """
    if value is None or value != value:
        return "–"
    if unit in ("mJ", "ms"):
        value, unit = value / 1e3, unit[1:]
    scale, prefix = next(((s, p) for s, p in _PREFIXES if abs(value) >= s * 0.9995), _PREFIXES[-1])
    if value == 0:
        return f"0 {unit}".rstrip()
    scaled = value / scale
    digits = max(0, 2 - len(str(int(abs(scaled)))) + 1)
    return f"{scaled:.{digits}f} {prefix}{unit}".rstrip()


def percent(value: float | None, error: float | None = None) -> str:
    """A share in per cent, with its standard error if there is one: ``97.2 ± 0.7 %``."""
    if value is None:
        return "–"
    return f"{100 * value:.1f}" + (f" ± {100 * error:.1f} %" if error is not None else " %")


def excerpt(front: Front) -> Sequence[Point]:
    """At most :data:`ROWS` points of a front, cheapest first: as many as a screen holds."""
    return select(front, f"count={ROWS}") if len(front.points) > ROWS else front.points


def front_table(front: Front, points: Sequence[Point]) -> Table:
    """The points of a front, cheapest first, beside what the full path costs."""
    retrained = any(p.retrained for p in (*points, front.full))
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("path", style="cyan", no_wrap=True)
    predicted = front.full.samples == 0
    columns = [f"{front.metric} (predicted)"] if predicted else [f"{front.metric} (val.)", "test"]
    columns += ["retrained (val.)", "retrained, test"] if retrained else []
    for column in [*columns, "energy", "saved", "latency", "MACs", "parameters"]:
        table.add_column(column, justify="right", no_wrap=True)
    rows = [*points] if front.full in points else [*points, front.full]
    for point in rows:
        best = point.best_retrained
        if predicted:
            cells = [percent(point.accuracy)]
        else:
            cells = [percent(point.accuracy, point.accuracy_error)]
            cells += [percent(point.test_accuracy, point.test_error)]
        if retrained:
            cells += [percent(best.accuracy, best.error) if best else "–"]
            cells += [percent(best.test_accuracy, best.test_error) if best else "–"]
        cells += [
            quantity(point.energy_mj, "mJ"),
            percent(front.saved(point)),
            quantity(point.latency_ms, "ms"),
            quantity(point.macs, ""),
            quantity(point.params, ""),
        ]
        name = f"{point.id} (full)" if point.id == front.full.id else point.id
        table.add_row(name, *cells)
    return table


def profile_tables(profile: Profile) -> list[Table]:
    """A profile by kind of operator and by unit: amounts, and their shares of the path."""
    tables = []
    for title, rows in (("kind", profile.by_kind), ("unit", profile.by_unit)):
        table = Table(box=None, header_style="bold", pad_edge=False)
        table.add_column(title, style="cyan", no_wrap=True)
        names = {"macs": "MACs", "energy_mj": "energy", "latency_ms": "latency", "params": "params"}
        for name in names.values():
            table.add_column(name, justify="right", no_wrap=True)
            table.add_column("%", justify="right", style="dim", no_wrap=True)
        columns = []
        for name in QUANTITIES:
            unit = {"energy_mj": "mJ", "latency_ms": "ms"}.get(name, "")
            amounts = [quantity(getattr(row, name), unit) for row in rows]
            shares = profile.shares(rows, name)
            columns += [
                [*amounts, quantity(profile.total(name), unit)],
                [f"{100 * share:.1f}" for share in shares] if shares else ["–"] * len(rows),
            ]
            columns[-1].append("")
        labels = [*(row.name for row in rows), "all"]
        for i, label in enumerate(labels):
            table.add_row(label, *(column[i] for column in columns))
        tables.append(table)
    return tables


def measurement_tables(comparison: Comparison) -> list[Table]:
    """Measured paths beside what was predicted, and how well each prediction did."""
    paths = Table(box=None, header_style="bold", pad_edge=False)
    paths.add_column("path", style="cyan", no_wrap=True)
    for title in ("measured", "spread", "images/s", *(p.name for p in comparison.predictions)):
        paths.add_column(title, justify="right", no_wrap=True)
    for i, measured in enumerate(comparison.measurements):
        cells = [quantity(p.values[i], p.unit) for p in comparison.predictions]
        paths.add_row(
            measured.path_id,
            quantity(measured.latency_ms, "ms"),
            quantity(measured.spread_ms, "ms"),
            f"{measured.images_per_s:.1f}",
            *cells,
        )
    agreement = Table(box=None, header_style="bold", pad_edge=False)
    agreement.add_column("prediction", style="cyan")
    for title in ("rank correlation", "median error", "error after one factor"):
        agreement.add_column(title, justify="right")
    for found in comparison.agreements:
        error = percent(found.median_error)
        agreement.add_row(found.name, f"{found.spearman:.3f}", error, percent(found.scaled_error))
    return [paths, agreement]


def rescored_table(rescored: Rescored) -> Table:
    """Costs before, and by another cost model."""
    title = f"priced by {rescored.hardware}; * no longer on the front"
    table = Table(box=None, header_style="bold", pad_edge=False, title=title)
    table.add_column("path", style="cyan", no_wrap=True)
    for column in ("energy", "rescored", "change", "latency", "rescored", "change"):
        table.add_column(column, justify="right", no_wrap=True)
    units = (("energy_mj", "mJ"), ("latency_ms", "ms"))
    for row in rescored.rows:
        cells = []
        for name, unit in units:
            before, after = row[name], row[f"{name}_rescored"]
            change = after / before - 1 if before and after is not None else None
            changed = "–" if change is None else f"{100 * change:+.1f} %"
            cells += [quantity(before, unit), quantity(after, unit), changed]
        table.add_row(row["id"] + ("" if row["stays"] else " *"), *cells)
    found = [rescored.rank_correlations[name] for name, _ in units]
    energy, latency = ("–" if value is None else f"{value:.3f}" for value in found)
    table.add_row("rank correlation", "", "", energy, "", "", latency, style="dim")
    return table


def sensitivity_table(found: Sensitivity) -> Table:
    """What single decisions lose and save, those that lose least for it first.

    The bar is the loss for each per cent that is saved, against the dearest one shown.
    """
    cost = {"energy_mj": "energy", "latency_ms": "latency"}.get(found.cost, "MACs")
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("decision", style="cyan", no_wrap=True)
    columns = ("value", f"{found.metric} lost", f"{cost} saved", "lost per 1 % saved")
    for title in columns:
        table.add_column(title, justify="right", no_wrap=True)
    table.add_column("", no_wrap=True)
    ranked = found.ranked()
    dearest = max((effect.price for effect in ranked), default=0.0)
    for effect in ranked:
        lost = f"{100 * effect.lost:+.2f} ± {100 * effect.lost_error:.2f}"
        share = max(effect.price, 0.0) / dearest if dearest > 0 else 0.0
        table.add_row(
            effect.decision,
            str(effect.value),
            lost,
            f"{100 * effect.saved:.2f} %",
            f"{effect.price:+.3f}",
            Text("█" * max(1, round(16 * share)), style=_warmth(share)),
        )
    return table


def _warmth(share: float) -> str:
    return "green" if share < 0.1 else "yellow" if share < 0.4 else "red"


def score_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Scores of :func:`paretopath.jobs.evaluate_run`."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("path", style="cyan", no_wrap=True)
    table.add_column("weights")
    for split in ("validation", "test"):
        table.add_column(split, justify="right", no_wrap=True)
    for row in rows:
        scores = [percent(row[split].value, row[split].error) for split in ("validation", "test")]
        table.add_row(row["id"], row["weights"], *scores)
    return table


def status_table(found: Sequence[RetrainStatus]) -> Table:
    """How each retraining is: state, epochs, accuracy, where its log is; failures with reasons."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("retraining", style="cyan", no_wrap=True)
    for title in ("job", "state", "epoch", "loss", "validation", "restarts"):
        table.add_column(title, no_wrap=True)
    table.add_column("log, or why", overflow="fold")
    for one in found:
        epoch = one.epoch
        of = one.progress.of if one.progress else "–"
        shown = (
            [percent(value) for value in list(one.progress.metrics.values())[:4]]
            if (one.progress)
            else []
        )
        log = str(one.launched.log_file) if one.launched else "–"
        table.add_row(
            one.job.name,
            one.launched.id if one.launched else "–",
            one.state,
            f"{epoch.number if epoch else 0} of {of}",
            f"{epoch.loss:.3f}" if epoch else "–",
            ", ".join(shown) or "–",
            str(one.restarts),
            f"{one.reason}; {log}" if one.reason else log,
        )
    return table


def follow(
    console: Console, ask: Callable[[], list[RetrainStatus]], *, every_s: float = 2.0
) -> list[RetrainStatus]:
    """Shows retrainings until all have ended: a table that is redrawn, or a plain line for each
    change where the output is not a terminal.
    """
    found = ask()
    if console.is_terminal:
        with Live(status_table(found), console=console, auto_refresh=False) as live:
            while not all(one.has_ended for one in found):
                time.sleep(every_s)
                found = ask()
                live.update(status_table(found), refresh=True)
        return found
    said: dict[str, str] = {}
    while True:
        for one in found:
            epoch = f"epoch {one.epoch.number} of {one.epoch.of}" if one.epoch else ""
            line = ", ".join(part for part in (one.state, epoch, one.reason) if part)
            if said.get(one.job.name) != line:
                said[one.job.name] = line
                console.print(f"{one.job.name}: {line}", highlight=False, soft_wrap=True)
        if all(one.has_ended for one in found):
            return found
        time.sleep(every_s)
        found = ask()


def describe(path: ExecutionPath, full: ExecutionPath) -> str:
    """What a path does otherwise than the full one, in one line."""
    changed = [f"{name}={value}" for name, value in path.items() if full.get(name) != value]
    return ", ".join(changed) or "the full path"


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


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Keeps Lightning's and torch's hints off the screen; their errors still come."""
    import logging
    import warnings

    loggers = [
        logging.getLogger(name) for name in ("pytorch_lightning.utilities.rank_zero", "optuna")
    ]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"(pytorch_)?lightning.*")
        warnings.filterwarnings("ignore", module=r"torch\..*")
        warnings.filterwarnings("ignore", module=r"optuna.*")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


def consoles() -> tuple[Console, Console]:
    """Standard output for results, standard error for everything else."""
    width = None if sys.stdout.isatty() else 200
    return Console(file=sys.stdout, width=width), Console(file=sys.stderr)
