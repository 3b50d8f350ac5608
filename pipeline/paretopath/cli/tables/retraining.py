"""How retrainings are, and what came out of them."""

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.live import Live
from rich.table import Table

from paretopath.jobs import RetrainStatus
from paretopath.quantities import percent


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
