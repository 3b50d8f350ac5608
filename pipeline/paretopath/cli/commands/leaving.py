"""When images may leave early."""

from typing import Annotated

import typer

from paretopath.cli.arguments import SELECT, Device, Json, RunDir
from paretopath.cli.output import consoles, print_json, quiet_libraries, tracking
from paretopath.errors import InvalidValueError
from paretopath.files import require_writable


def exits(
    run: RunDir,
    select: Annotated[str | None, SELECT] = None,
    max_loss: Annotated[
        float | None,
        typer.Option(help="The cheapest policy that loses at most so many points of accuracy."),
    ] = None,
    energy_budget: Annotated[
        str | None,
        typer.Option(help="The most accurate policy within this: 60% of the full path, 12.5mJ."),
    ] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Find when images may leave early: policies over the exits of the front's paths.

    They are found once, for all paths or those selected; typed again, a bound chooses among them.
    """
    from paretopath import jobs
    from paretopath.cli.progressing import Progressing
    from paretopath.cli.tables.leaving import exits_table, policies_table
    from paretopath.front import dynamic_record, policies_within
    from paretopath.run import Run

    out, err = consoles()
    if max_loss is not None and energy_budget is not None:
        raise InvalidValueError("--max-loss and --energy-budget can't be combined; give one")
    opened = Run.open(run, device=device)
    front = opened.front()
    points = policies_within(front, max_loss, energy_budget) if front.policies else []
    if select is not None or not front.policies:
        require_writable(run)
        with quiet_libraries(), Progressing(err, "exits") as bar:
            front = jobs.exits_run(opened, selection=select or "all", on_phase=bar.phase)
        points = policies_within(front, max_loss, energy_budget)
        with tracking(opened) as tracked:
            jobs.track_outcome(opened, tracked)
        jobs.save_report(opened)
    if as_json:
        print_json(
            {
                "metric": front.metric,
                "cost": front.cost,
                "full": {"id": front.full.id, front.cost: front.cost_of(front.full)},
                "policies": [dynamic_record(point) for point in points],
            }
        )
        return
    out.print(policies_table(front, points, width=out.width))
    if len(points) == 1:
        out.print()
        out.print(exits_table(points[0], width=out.width))
