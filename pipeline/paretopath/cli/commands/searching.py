"""Finding the Pareto-optimal paths of a model, alone or with other workers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from paretopath.cli.arguments import Device, Json, RecipeFile, RunDir
from paretopath.cli.faults import LOG_FOLDER
from paretopath.cli.output import consoles, print_json, quiet_libraries, tracking
from paretopath.quantities import counted

if TYPE_CHECKING:
    from paretopath.run import Run


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
        bool,
        typer.Option(
            "--fresh",
            help="Move an older run aside and start anew. Base weights that a run beside this one "
            "made from the same are taken, those of the moved run too.",
        ),
    ] = False,
    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run", help="Resolve and price everything, show it, and train and write nothing."
        ),
    ] = False,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Find the Pareto-optimal paths of a recipe's model. Resumes a run directory that exists."""
    from paretopath.recipe import load_recipe

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
    # after the recipe is checked: torch alone takes seconds
    from paretopath import jobs
    from paretopath.cli.progressing import Progressing
    from paretopath.cli.tables.front import excerpt, front_json, front_table
    from paretopath.run import Run, default_directory

    out, err = consoles()
    directory = run_dir or default_directory(resolved)
    if dry_run:
        _show_plan(Run(directory, resolved, device=device), fresh=fresh, as_json=as_json)
        return
    with quiet_libraries(), Progressing(err, "training the base model") as bar:
        start = jobs.started(
            directory,
            resolved,
            device=device,
            fresh=fresh,
            on_moved=lambda moved: err.print(f"The older run is now {moved}."),
            on_phase=bar.phase,
        )
        with start as (run, parts), tracking(run) as tracked:
            LOG_FOLDER.set(directory)
            jobs.prepare_weights(
                run,
                parts,
                on_epoch=bar.epoch,
                on_phase=bar.phase,
                on_taken=lambda file: err.print(f"Base weights made from the same: {file}."),
            )
            front = jobs.search_run(
                run, parts, on_progress=bar.search, on_phase=bar.phase, tracking=tracked
            )
            jobs.save_report(run)
    if as_json:
        print_json({"run": str(directory), **front_json(front, front.points)})
        return
    points = excerpt(front)
    out.print(front_table(front, points, width=out.width))
    rest = "" if len(points) == len(front.points) else f", of which {len(points)} are shown"
    beside = "" if front.full in front.points else " beside the full path"
    number = counted(len(front.points), "path")
    out.print(f"\n{number} on the front{beside}{rest}; hypervolume {front.hypervolume:.4f}.")
    if rest:
        out.print(f"All of them: paretopath front {directory}")
    if front.policies:
        dynamic = counted(len(front.policies), "dynamic point")
        out.print(
            f"With {dynamic}, paths that images leave early, "
            f"{front.hypervolume_with_policies:.4f}: paretopath exits {directory}"
        )
    out.print(f"Report: {run.report_file}")
    if resolved.data is not None:
        out.print(f"Next: paretopath retrain {directory} --select {resolved.retrain.select}")


def _show_plan(run: "Run", *, fresh: bool, as_json: bool) -> None:
    from paretopath import jobs
    from paretopath.cli.progressing import Progressing
    from paretopath.cli.tables.plan import plan_tables

    out, err = consoles()
    with quiet_libraries(), Progressing(err, "plan") as bar:
        plan = jobs.plan_search(run, fresh=fresh, on_phase=bar.phase)
    if as_json:
        print_json({"dry_run": True, **plan.to_json()})
        return
    said, costs = plan_tables(plan, width=out.width)
    out.print(said)
    out.print()
    out.print(costs)


def worker(
    run: RunDir,
    device: Device = None,
    name: Annotated[str | None, typer.Option(hidden=True)] = None,
    parent: Annotated[int | None, typer.Option(hidden=True)] = None,
) -> None:
    """Join the search of a run directory that several workers share, from any machine."""
    import os

    from paretopath import jobs
    from paretopath.run import Run

    def is_orphan() -> bool:
        return parent is not None and os.getppid() != parent

    _leave_when_terminated()
    _, err = consoles()
    with quiet_libraries():
        count = jobs.work_on(Run.open(run, device=device), name=name, should_stop=is_orphan)
    done = counted(count, "path")
    err.print(f"This worker evaluated {done}; `paretopath search` writes the front.")


def _leave_when_terminated() -> None:
    """A batch system's SIGTERM ends a process as ctrl-C does: with what it has on disk."""
    import signal

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)
