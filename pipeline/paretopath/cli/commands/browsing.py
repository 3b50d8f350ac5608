"""What a search found."""

from typing import Annotated

import typer

from paretopath.cli.arguments import SELECT, Csv, Device, Html, Json, RunDir, one_of
from paretopath.cli.output import consoles, print_json, tracking
from paretopath.files import require_writable


def front(
    run: RunDir,
    select: Annotated[str, SELECT] = "all",
    rescore: Annotated[
        str | None,
        typer.Option(
            help="Price the paths anew, with `mapper` (ZigZag) or `device`.",
            callback=one_of("--rescore", "mapper", "device"),
        ),
    ] = None,
    html: Html = None,
    csv: Csv = None,
    as_json: Json = False,
) -> None:
    """Show the front of a search, or a selection of it."""
    from paretopath import jobs
    from paretopath.cli.progressing import Progressing
    from paretopath.cli.tables.front import describe, front_json, front_table, rescored_table
    from paretopath.front import select as select_points
    from paretopath.run import Run

    out, err = consoles()
    opened = Run.open(run, device=None if rescore else "cpu")
    found = opened.front()
    points = select_points(found, select)
    if html:
        jobs.save_report(opened, html)
    if csv:
        found.save_csv(csv, points)
    rescored = None
    if rescore:
        with Progressing(err, f"pricing by {rescore}") as bar:
            rescored = jobs.rescore(
                opened, points, rescore, on_progress=lambda done, all: bar.update(done, all, "")
            )
    if as_json:
        extra = {"rescored": rescored.to_json()} if rescored else {}
        print_json({**front_json(found, points), **extra})
        return
    out.print(front_table(found, points, width=out.width))
    if rescored and rescore:
        out.print(rescored_table(rescored, rescore, width=out.width))
    if len(points) == 1:
        out.print(f"\n{points[0].id}: {describe(points[0].path, found.full.path)}")


def sensitivity(
    run: RunDir,
    html: Html = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Show what each decision alone loses and saves: which ones to touch first."""
    from paretopath import jobs
    from paretopath.cli.progressing import Progressing
    from paretopath.cli.tables.front import sensitivity_table
    from paretopath.run import Run

    out, err = consoles()
    opened = Run.open(run, device=device)
    require_writable(run)
    is_new = not opened.sensitivity_file.is_file()
    with Progressing(err, "sensitivity") as bar:
        found = jobs.sensitivity_run(opened, on_phase=bar.phase)
    if is_new and opened.front_file.is_file():
        with tracking(opened) as tracked:
            jobs.track_sensitivity(opened, tracked)
    if html or opened.front_file.is_file():
        jobs.save_report(opened, html)
    if as_json:
        print_json(found.to_json())
        return
    out.print(sensitivity_table(found, width=out.width))
