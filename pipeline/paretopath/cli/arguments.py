"""Arguments and options that several commands share, each checked at the door."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import typer

from paretopath.cli.faults import LOG_FOLDER
from paretopath.devices import check_device
from paretopath.errors import InvalidValueError, nearest
from paretopath.files import require_file_place


def _run_dir(directory: Path) -> Path:
    LOG_FOLDER.set(directory)
    return directory


def _device(name: str | None) -> str | None:
    return None if name is None else check_device(name)


def _selection(text: str | None) -> str | None:
    if text is not None:
        from paretopath.recipe.selection import parse_selection

        parse_selection(text)
    return text


def one_of(option: str, *legal: str) -> Callable[[str | None], str | None]:
    """The check of an option that takes one of a few words."""

    def check(text: str | None) -> str | None:
        if text is not None and text not in legal:
            raise InvalidValueError(
                f"{option} must be one of its choices, but got {text!r}; {nearest(text, legal)}"
            )
        return text

    return check


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
SELECT = typer.Option(
    help="all, knee, budget=70%, budget=12.5mJ, params=1M, count=4 or id=ID.", callback=_selection
)
Html = Annotated[Path | None, typer.Option(help="Write it into this HTML file.", callback=_output)]
Csv = Annotated[
    Path | None, typer.Option(help="Write the paths as a table here.", callback=_output)
]
