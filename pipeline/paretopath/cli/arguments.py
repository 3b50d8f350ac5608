"""Arguments and options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

RecipeFile = Annotated[Path, typer.Argument(help="A recipe: one YAML file.", show_default=False)]
RunDir = Annotated[Path, typer.Argument(help="A run directory.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="One JSON object on standard output.")]
Device = Annotated[
    str | None, typer.Option(help="cpu, cuda, cuda:1 …; the first GPU if there is one.")
]
