"""Runs as reports in Weights & Biases."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from paretopath.cli.arguments import Json
from paretopath.cli.output import consoles, print_json


def publish(
    runs: Annotated[list[Path], typer.Argument(help="Run directories.", show_default=False)],
    title: Annotated[str | None, typer.Option(help="The groups' names by default.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the report's specification; send nothing.")
    ] = False,
    new: Annotated[
        bool, typer.Option("--new", help="Make another report; do not update the one of before.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Create a report in W&B over one search or several; typed again, it updates the same one."""
    from paretopath.run import Run
    from paretopath.showing import publish
    from paretopath.showing.tracking import unsynced_runs

    out, err = consoles()
    searches = [publish.published_search(Run.open(run, device="cpu")) for run in runs]
    report = publish.build_report(searches, title=title)
    for run in runs:
        if unsynced_runs(run):
            note = f"Not in W&B yet, so not in the report: wandb sync {run}/wandb/offline-run-*"
            err.print(note, highlight=False, soft_wrap=True)
    if dry_run:
        print_json(publish.report_spec(report))
        return
    saved = publish.save_report(report, searches, new=new)
    if as_json:
        print_json(asdict(saved))
        return
    out.print(f"Report: {saved.url}", soft_wrap=True)
