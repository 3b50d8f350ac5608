"""The command ``paretopath``: arguments in, tables out."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from paretopath.errors import ParetopathError

if TYPE_CHECKING:
    from paretopath.run import Run
    from paretopath.showing.tracking import Tracking

RecipeFile = Annotated[Path, typer.Argument(help="A recipe: one YAML file.", show_default=False)]
RunDir = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 …; the first GPU if there is one.")
]

app = typer.Typer(
    help="Search, retrain and deploy the execution paths of a vision model under an energy budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)


@app.command(epilog="Example: paretopath profile recipes/digits_vit.yaml --path smallest")
def profile(
    recipe: RecipeFile,
    path: Annotated[
        str, typer.Option(help="full, smallest, or a JSON file of decisions.")
    ] = "full",
    html: Annotated[Path | None, typer.Option(help="Also draw it into this HTML file.")] = None,
    as_json: Json = False,
) -> None:
    """MACs, energy and latency of one path, by kind of operator and by unit."""
    from paretopath.cli import terminal
    from paretopath.recipe import load_recipe
    from paretopath.run import Run, read_path
    from paretopath.showing.profile import profile_path, write_html

    out, _ = terminal.consoles()
    run = Run(Path(), load_recipe(recipe))
    profiled = profile_path(run.table, read_path(run.space, path))
    if html:
        write_html(html, profiled)
    if as_json:
        _print_json(profiled.to_json())
    else:
        for table in terminal.profile_tables(profiled):
            out.print(table)


@app.command(epilog="Example: paretopath search recipes/digits_vit.yaml --energy-budget 60%")
def search(
    recipe: RecipeFile,
    energy_budget: Annotated[
        str | None, typer.Option(help="No path above it: 70% of the full path, or 12.5mJ.")
    ] = None,
    latency_budget: Annotated[
        str | None, typer.Option(help="No path above it: 70% of the full path, or 8ms.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Paths to evaluate.")] = None,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same trials.")] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the search; `worker` adds more.")
    ] = None,
    storage: Annotated[
        str | None, typer.Option(help="Keep the study in a database: postgresql://…, grpc://…")
    ] = None,
    launch: Annotated[
        str | None, typer.Option(help="Where the workers run: local or slurm.")
    ] = None,
    run_dir: Annotated[
        Path | None, typer.Option(help="Where to keep everything; runs/NAME by default.")
    ] = None,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Move an older run aside and start anew.")
    ] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Find the Pareto-optimal paths of a recipe's model. Resumes a run directory that exists."""
    from paretopath import jobs
    from paretopath.cli import terminal
    from paretopath.recipe import load_recipe
    from paretopath.run import Run, default_directory, move_aside

    out, err = terminal.consoles()
    given = {
        "search.energy_budget": ("--energy-budget", energy_budget),
        "search.latency_budget": ("--latency-budget", latency_budget),
        "search.trials": ("--trials", trials),
        "search.seed": ("--seed", seed),
        "search.workers": ("--workers", workers),
        "search.storage": ("--storage", storage),
        "launch.where": ("--launch", launch),
    }
    set_here = {field: value for field, (_, value) in given.items() if value is not None}
    resolved = load_recipe(recipe).with_overrides(
        set_here, options={field: option for field, (option, _) in given.items()}
    )
    directory = run_dir or default_directory(resolved)
    if fresh:
        moved = move_aside(directory)
        if moved:
            err.print(f"The older run is now {moved}.")
    run = Run.start(directory, resolved, device=device)
    with terminal.quiet_libraries(), _tracking(run) as tracking:
        with terminal.Progressing(err, "training the base model") as bar:
            jobs.prepare_weights(run, on_epoch=bar.epoch)
        with terminal.Progressing(err, "search") as bar:
            front = jobs.search_run(run, on_progress=bar.search, tracking=tracking)
        jobs.save_report(run)
    if as_json:
        _print_json({"run": str(directory), **_front_json(front, front.points)})
        return
    points = terminal.excerpt(front)
    out.print(terminal.front_table(front, points))
    rest = "" if len(points) == len(front.points) else f", of which {len(points)} are shown"
    out.print(f"\n{len(front.points)} paths{rest}, hypervolume {front.hypervolume:.4f}.")
    if rest:
        out.print(f"All of them: paretopath front {directory}")
    out.print(f"Report: {run.report_file}")
    if resolved.data is not None:
        out.print(f"Next: paretopath retrain {directory} --select {resolved.retrain.select}")


@app.command(epilog="Example: paretopath worker runs/digits_vit")
def worker(
    run: RunDir,
    device: Device = None,
    name: Annotated[str | None, typer.Option(hidden=True)] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Join the search of a run directory that several workers share, from any machine."""
    import os

    from paretopath import jobs
    from paretopath.cli import terminal
    from paretopath.run import Run

    def is_orphan() -> bool:
        return parent is not None and os.getppid() != parent

    _leave_when_terminated()
    _, err = terminal.consoles()
    with terminal.quiet_libraries():
        count = jobs.work_on(Run.open(run, device=device), name=name, should_stop=is_orphan)
    err.print(f"This worker evaluated {count} paths; `paretopath search` writes the front.")


@app.command(epilog="Example: paretopath front runs/digits_vit --select knee")
def front(
    run: RunDir,
    select: Annotated[
        str, typer.Option(help="all, knee, budget=70%, budget=12.5mJ, count=4 or id=ID.")
    ] = "all",
    rescore: Annotated[
        str | None, typer.Option(help="Price the paths anew, with `mapper` (ZigZag) or `device`.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Write the report here.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write the paths as a table here.")] = None,
    as_json: Json = False,
) -> None:
    """Show the front of a search, or a selection of it."""
    from paretopath import jobs
    from paretopath.cli import terminal
    from paretopath.front import select as select_points
    from paretopath.run import Run

    out, err = terminal.consoles()
    opened = Run.open(run, device=None if rescore else "cpu")
    found = opened.front()
    points = select_points(found, select)
    if html:
        jobs.save_report(opened, html)
    if csv:
        found.save_csv(csv, points)
    rescored = None
    if rescore:
        with terminal.Progressing(err, f"pricing by {rescore}") as bar:
            rescored = jobs.rescore(
                opened, points, rescore, on_progress=lambda done, all: bar.update(done, all, "")
            )
    if as_json:
        extra = {"rescored": rescored.to_json()} if rescored else {}
        _print_json({**_front_json(found, points), **extra})
        return
    out.print(terminal.front_table(found, points))
    if rescored:
        out.print(terminal.rescored_table(rescored))
    if len(points) == 1:
        out.print(f"\n{points[0].id}: {terminal.describe(points[0].path, found.full.path)}")


@app.command(epilog="Example: paretopath sensitivity runs/digits_vit")
def sensitivity(
    run: RunDir,
    html: Annotated[Path | None, typer.Option(help="Write the report, with it, here.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Show what each decision alone loses and saves: which ones to touch first."""
    from paretopath import jobs
    from paretopath.cli import terminal
    from paretopath.run import Run

    out, err = terminal.consoles()
    opened = Run.open(run, device=device)
    is_new = not opened.sensitivity_file.is_file()
    if is_new:
        err.print("Trying every decision alone …")
    found = jobs.sensitivity_run(opened)
    if is_new and opened.front_file.is_file():
        with _tracking(opened) as tracking:
            jobs.track_sensitivity(opened, tracking)
    if html or opened.front_file.is_file():
        jobs.save_report(opened, html)
    if as_json:
        _print_json(found.to_json())
        return
    out.print(terminal.sensitivity_table(found))


@app.command(epilog="Example: paretopath retrain runs/digits_vit --select count=4 --mode shared")
def retrain(
    run: RunDir,
    select: Annotated[
        str | None, typer.Option(help="As for `front`; the recipe's choice by default.")
    ] = None,
    mode: Annotated[
        str | None, typer.Option(help="shared: one elastic model; separate: one model a path.")
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
    from paretopath.cli import terminal
    from paretopath.run import Run

    out, err = terminal.consoles()
    opened = Run.open(run, device=device)
    set_here = {"launch.where": launch} if launch is not None else {}
    where = opened.recipe.with_overrides(set_here, options={"launch.where": "--launch"}).launch
    settings = opened.recipe.retrain
    chosen = mode or settings.mode
    planned = jobs.plan_retraining(opened, selection=select or settings.select, mode=chosen)
    if where.where == "slurm":
        found = jobs.launch_retraining(opened, planned)
        if not detach:
            err.print(f"Following the jobs; a Ctrl-C leaves them: paretopath status {run} --wait")
            found = terminal.follow(err, lambda: jobs.statuses(opened, planned))
        _finish_status(opened, found, as_json=as_json)
        return
    results = []
    with terminal.quiet_libraries(), _tracking(opened) as tracking:
        for i, job in enumerate(planned):
            title = f"retraining {job.name} ({i + 1} of {len(planned)})"
            with terminal.Progressing(err, title) as bar:
                results += jobs.retrain_tracked(opened, job, tracking, on_epoch=bar.epoch)
        front = jobs.collect(opened, chosen, results)
        jobs.track_outcome(opened, tracking)
        jobs.save_report(opened)
    points = [front[result.path.id] for result in results]
    if as_json:
        _print_json({"mode": chosen, **_front_json(front, points)})
        return
    out.print(terminal.front_table(front, points))
    out.print(f"\nReport: {opened.report_file}")


@app.command(epilog="Example: paretopath status runs/digits_vit --wait")
def status(
    run: RunDir,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow until every retraining has ended.")
    ] = False,
    as_json: Json = False,
) -> None:
    """Show how each retraining of a run is, and put what has finished onto the front."""
    from paretopath import jobs
    from paretopath.cli import terminal
    from paretopath.run import Run

    _, err = terminal.consoles()
    opened = Run.open(run, device="cpu")
    found = jobs.statuses(opened)
    if wait:
        found = terminal.follow(err, lambda: jobs.statuses(opened))
    _finish_status(opened, found, as_json=as_json)


def _finish_status(run: Any, found: Sequence[Any], *, as_json: bool) -> None:
    """Collects what has finished, shows it, and exits with 1 if something failed."""
    from paretopath import jobs
    from paretopath.cli import terminal

    out, _ = terminal.consoles()
    if jobs.collect_finished(run, found):
        with _tracking(run) as tracking:
            jobs.track_outcome(run, tracking)
        jobs.save_report(run)
    if as_json:
        _print_json({"jobs": [one.to_json() for one in found]})
    elif not found:
        out.print("No retraining was begun with the present settings: paretopath retrain RUN")
    else:
        out.print(terminal.status_table(found))
        if all(one.state == "done" for one in found):
            out.print(f"\nOn the front: paretopath front {run.directory}; {run.report_file}")
    if any(one.state == "failed" for one in found):
        sys.exit(1)


@app.command(epilog="Example: paretopath evaluate runs/digits_vit")
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
    from paretopath.cli import terminal
    from paretopath.run import Run

    out, _ = terminal.consoles()
    rows = jobs.evaluate_run(Run.open(run, device=device), path or [])
    if as_json:
        splits = ("validation", "test")
        _print_json({"scores": [{**row, **{s: asdict(row[s]) for s in splits}} for row in rows]})
        return
    out.print(terminal.score_table(rows))


@app.command(epilog="Example: paretopath measure runs/digits_vit --batch-size 16")
def measure(
    run: RunDir,
    select: Annotated[str, typer.Option(help="As for `front`.")] = "all",
    batch_size: Annotated[int, typer.Option(help="Images at once.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="Of the CPU; torch's own by default.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each path's turn comes.", min=1)] = 10,
    html: Annotated[Path | None, typer.Option(help="Draw the comparison into this file.")] = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure paths of the front on this machine, beside what was predicted."""
    from paretopath import jobs
    from paretopath.cli import terminal
    from paretopath.run import Run
    from paretopath.showing.measure import write_html

    out, err = terminal.consoles()
    opened = Run.open(run, device=device)
    with terminal.Progressing(err, "measuring") as bar:
        comparison = jobs.measure_run(
            opened,
            selection=select,
            batch_size=batch_size,
            threads=threads,
            rounds=rounds,
            on_turn=lambda done, total: bar.update(done, total, ""),
        )
    with _tracking(opened) as tracking:
        jobs.track_outcome(opened, tracking)
    if html:
        write_html(html, comparison)
    if as_json:
        _print_json(comparison.to_json())
        return
    out.print(f"Measured on {comparison.hardware}, {batch_size} image(s) at once; for one image:")
    for table in terminal.measurement_tables(comparison):
        out.print(table)


@app.command(epilog="Example: paretopath publish runs/magnet runs/eyeriss")
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
    from paretopath.cli import terminal
    from paretopath.run import Run
    from paretopath.showing import publish
    from paretopath.showing.tracking import unsynced_runs

    out, err = terminal.consoles()
    searches = [publish.published_search(Run.open(run, device="cpu")) for run in runs]
    report = publish.build_report(searches, title=title)
    for run in runs:
        if unsynced_runs(run):
            note = f"Not in W&B yet, so not in the report: wandb sync {run}/wandb/offline-run-*"
            err.print(note, highlight=False, soft_wrap=True)
    if dry_run:
        _print_json(publish.report_spec(report))
        return
    saved = publish.save_report(report, searches, new=new)
    if as_json:
        _print_json(asdict(saved))
        return
    out.print(f"Report: {saved.url}", soft_wrap=True)


def _front_json(front: Any, points: Sequence[Any]) -> dict[str, Any]:
    from paretopath.front import to_record

    return {
        "hardware": front.hardware,
        "metric": front.metric,
        "hypervolume": front.hypervolume,
        "full": to_record(front.full),
        "points": [to_record(point) for point in points],
    }


def _leave_when_terminated() -> None:
    """A batch system's SIGTERM ends a process as ctrl-C does: with what it has on disk."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


@contextmanager
def _tracking(run: "Run") -> "Iterator[Tracking]":
    """Shows a run in W&B, as its recipe says; what that has to say comes last."""
    from paretopath.cli import terminal
    from paretopath.showing.tracking import open_tracking

    with open_tracking(run.directory, run.recipe.tracking) as tracking:
        yield tracking
    for note in tracking.notes:
        terminal.consoles()[1].print(note, highlight=False, soft_wrap=True)


def _print_json(content: dict[str, Any]) -> None:
    print(json.dumps(content, ensure_ascii=False, allow_nan=False))


def main() -> None:
    """Runs the command; a user's mistake is one sentence on standard error and exit status 2."""
    try:
        app()
    except ParetopathError as error:
        print(f"paretopath: {error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("paretopath: interrupted; the same command goes on from here", file=sys.stderr)
        sys.exit(130)
