"""Training what a search found, following the jobs, measuring what came out."""

import sys
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from paretopath.cli.arguments import SELECT, Device, Json, RunDir, one_of
from paretopath.cli.output import consoles, print_json, quiet_libraries, tracking
from paretopath.files import require_writable

if TYPE_CHECKING:
    from paretopath.jobs import RetrainStatus
    from paretopath.run import Run


def retrain(
    run: RunDir,
    select: Annotated[str | None, SELECT] = None,
    mode: Annotated[
        str | None,
        typer.Option(
            help="shared: one elastic model; separate: one model a path; closed_form: paths are "
            "re-solved, nothing is trained.",
            callback=one_of("--mode", "shared", "separate", "closed_form"),
        ),
    ] = None,
    launch: Annotated[
        str | None, typer.Option(help="local, or slurm: as jobs, by the recipe's section launch.")
    ] = None,
    detach: Annotated[
        bool, typer.Option("--detach", help="Return once jobs are submitted; `status` follows.")
    ] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Retrain selected paths, and measure them again. Typed again, it goes on from there."""
    from paretopath import jobs
    from paretopath.cli.progressing import Progressing
    from paretopath.cli.tables.front import front_json, front_table
    from paretopath.cli.tables.retraining import follow
    from paretopath.run import Run

    out, err = consoles()
    opened = Run.open(run, device=device)
    require_writable(run)
    set_here = {"launch.where": launch} if launch is not None else {}
    where = opened.recipe.with_overrides(set_here, options={"launch.where": "--launch"}).launch
    settings = opened.recipe.retrain
    chosen = mode or settings.mode
    planned = jobs.plan_retraining(opened, selection=select or settings.select, mode=chosen)
    if where.where == "slurm":
        found = jobs.launch_retraining(opened, planned)
        if not detach:
            err.print(f"Following the jobs; a Ctrl-C leaves them: paretopath status {run} --wait")
            found = follow(err, lambda: jobs.statuses(opened, planned))
        _finish_status(opened, found, as_json=as_json)
        return
    results = []
    with quiet_libraries(), tracking(opened) as tracked:
        for i, job in enumerate(planned):
            title = f"retraining {job.name} ({i + 1} of {len(planned)})"
            with Progressing(err, title) as bar:
                results += jobs.retrain_tracked(
                    opened, job, tracked, on_epoch=bar.epoch, on_phase=bar.phase
                )
        front = jobs.collect(opened, chosen, results)
        jobs.track_outcome(opened, tracked)
        jobs.save_report(opened)
    points = [front[result.path.id] for result in results]
    if as_json:
        print_json({"mode": chosen, **front_json(front, points, chosen)})
        return
    out.print(front_table(front, points, mode=chosen, width=out.width))
    out.print(f"\nReport: {opened.report_file}")


def status(
    run: RunDir,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow until every retraining has ended.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how each retraining of a run is, and put what has finished onto the front."""
    from paretopath import jobs
    from paretopath.cli.tables.retraining import follow
    from paretopath.run import Run

    _, err = consoles()
    opened = Run.open(run, device="cpu")
    found = jobs.statuses(opened)
    if wait:
        found = follow(err, lambda: jobs.statuses(opened))
    _finish_status(opened, found, as_json=as_json)


def _finish_status(run: "Run", found: Sequence["RetrainStatus"], *, as_json: bool) -> None:
    """Collects what has finished, shows it, and exits with 1 if something failed."""
    from paretopath import jobs
    from paretopath.cli.tables.retraining import status_table

    out, _ = consoles()
    if jobs.collect_finished(run, found):
        with tracking(run) as tracked:
            jobs.track_outcome(run, tracked)
        jobs.save_report(run)
    if as_json:
        print_json({"jobs": [one.to_json() for one in found]})
    elif not found:
        out.print("No retraining was begun with the present settings: paretopath retrain RUN")
    else:
        out.print(status_table(found))
        if all(one.state == "done" for one in found):
            out.print(f"\nOn the front: paretopath front {run.directory}; {run.report_file}")
    if any(one.state == "failed" for one in found):
        sys.exit(1)


def evaluate(
    run: RunDir,
    path: Annotated[
        list[str] | None, typer.Option(help="Id of a path, or its beginning; may be repeated.")
    ] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure paths of the front anew, from the weights on disk, on validation and test."""
    from paretopath import jobs
    from paretopath.cli.progressing import Progressing
    from paretopath.cli.tables.retraining import score_table
    from paretopath.run import Run

    out, err = consoles()
    with Progressing(err, "evaluation") as bar:
        opened = Run.open(run, device=device)
        rows = jobs.evaluate_run(opened, path or [], on_phase=bar.phase)
    if as_json:
        splits = ("validation", "test")
        print_json({"scores": [{**row, **{s: asdict(row[s]) for s in splits}} for row in rows]})
        return
    out.print(score_table(rows))
