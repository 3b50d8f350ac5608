"""How retrainings are, and what came out of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from paretopath.jobs import RetrainStatus
from paretopath.quantities import UNKNOWN, percent, words


def score_table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """Scores of :func:`paretopath.jobs.evaluate_run`."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("path", style="cyan", no_wrap=True)
    table.add_column("weights")
    for split in ("validation", "test"):
        table.add_column(split, justify="right", no_wrap=True)
    for row in rows:
        scores = [percent(row[split].value, row[split].error) for split in ("validation", "test")]
        table.add_row(row["id"], words(row["weights"]), *scores)
    return table


def status_table(found: Sequence[RetrainStatus]) -> Table:
    """How each retraining is: state, epochs, accuracy, where its log is; failures with reasons.

    A column in which nothing is to be said stays out.
    """
    table = Table(box=None, header_style="bold", pad_edge=False)
    table.add_column("retraining", style="cyan", no_wrap=True)
    rows = [_status_cells(one) for one in found]
    titles = ("job", "state", "epoch", "loss", "validation", "restarts", "log, or why")
    said = [i for i in range(len(titles)) if any(row[i] not in ("", UNKNOWN) for row in rows)]
    for i in said:
        is_last = titles[i] == "log, or why"
        table.add_column(titles[i], no_wrap=not is_last, overflow="fold")
    for one, row in zip(found, rows, strict=True):
        table.add_row(one.job.name, *(row[i] for i in said))
    return table


def _status_cells(one: RetrainStatus) -> list[str]:
    epoch, progress = one.epoch, one.progress
    scores = list(progress.metrics.values())[:4] if progress else []
    log = str(one.launched.log_file) if one.launched else ""
    return [
        one.launched.id if one.launched else UNKNOWN,
        one.state,
        f"{epoch.number if epoch else 0} of {progress.of if progress else UNKNOWN}",
        f"{epoch.loss:.3f}" if epoch else UNKNOWN,
        ", ".join(map(percent, scores)) or UNKNOWN,
        str(one.restarts or ""),
        "; ".join(part for part in (one.reason, log) if part),
    ]


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
