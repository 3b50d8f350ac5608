"""Where a path's cost goes, and what it takes on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from paretopath.cli.arguments import SELECT, Device, Html, Json, RecipeFile, RunDir
from paretopath.cli.output import consoles, print_json, tracking
from paretopath.files import require_writable


def profile(
    recipe: RecipeFile,
    path: Annotated[
        str, typer.Option(help="full, smallest, or a JSON file of decisions.")
    ] = "full",
    html: Html = None,
    as_json: Json = False,
) -> None:
    """MACs, energy and latency of one path, by kind of operator and by unit."""
    from paretopath.recipe import load_recipe

    resolved = load_recipe(recipe)
    # after the recipe is checked: torch alone takes seconds
    from paretopath.cli.tables.measuring import profile_tables
    from paretopath.run import Run, build_space, build_table, read_path
    from paretopath.showing.profile import profile_path, write_html

    out, _ = consoles()
    run = Run(Path(), resolved)
    space = build_space(resolved)
    profiled = profile_path(build_table(run, space), read_path(space, path))
    if html:
        write_html(html, profiled)
    if as_json:
        print_json(profiled.to_json())
    else:
        for table in profile_tables(profiled, width=out.width):
            out.print(table)


def measure(
    run: RunDir,
    select: Annotated[str, SELECT] = "all",
    batch_size: Annotated[int, typer.Option(help="Images at once.", min=1)] = 1,
    threads: Annotated[int | None, typer.Option(help="Of the CPU; torch's own by default.")] = None,
    rounds: Annotated[int, typer.Option(help="How often each path's turn comes.", min=1)] = 10,
    html: Html = None,
    device: Device = None,
    as_json: Json = False,
) -> None:
    """Measure paths of the front on this machine, beside what was predicted."""
    from paretopath import jobs
    from paretopath.cli.progressing import Progressing
    from paretopath.cli.tables.measuring import measurement_tables
    from paretopath.run import Run
    from paretopath.showing.measure import write_html

    out, err = consoles()
    opened = Run.open(run, device=device)
    require_writable(run)
    with Progressing(err, "measuring") as bar:
        comparison = jobs.measure_run(
            opened,
            selection=select,
            batch_size=batch_size,
            threads=threads,
            rounds=rounds,
            on_turn=lambda done, total: bar.update(done, total, ""),
        )
    with tracking(opened) as tracked:
        jobs.track_outcome(opened, tracked)
    if html:
        write_html(html, comparison)
    if as_json:
        print_json(comparison.to_json())
        return
    said = f"Latency for one image, measured on {comparison.hardware}:"
    out.print(said, highlight=False, soft_wrap=True)
    for table in measurement_tables(comparison, width=out.width):
        out.print(table)
