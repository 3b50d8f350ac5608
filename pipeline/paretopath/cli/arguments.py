"""Arguments and options that several commands share, each checked at the door."""

from pathlib import Path
from typing import Annotated

import typer

from paretopath.cli.faults import LOG_FOLDER
from paretopath.devices import check_device
from paretopath.files import require_file_place


def _run_dir(directory: Path) -> Path:
    LOG_FOLDER.set(directory)
    return directory


def _device(name: str | None) -> str | None:
    return None if name is None else check_device(name)


def _output(file: Path | None) -> Path | None:
    if file is not None:
        require_file_place(file)
    return file


RecipeFile = Annotated[Path, typer.Argument(help="A recipe: one YAML file.", show_default=False)]
RunDir = Annotated[
    Path, typer.Argument(help="A run directory.", show_default=False, callback=_run_dir)
]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Device = Annotated[
    str | None,
    typer.Option(help="cpu, cuda, cuda:1 …; the first GPU if there is one.", callback=_device),
]
Html = Annotated[Path | None, typer.Option(help="Write it into this HTML file.", callback=_output)]
Csv = Annotated[
    Path | None, typer.Option(help="Write the paths as a table here.", callback=_output)
]
