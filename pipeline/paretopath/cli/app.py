"""The command ``paretopath``: its commands, and how it is started."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from typing import Annotated

import typer

from paretopath.cli import faults
from paretopath.cli.commands.beginning import init, recipes
from paretopath.cli.commands.browsing import front, sensitivity
from paretopath.cli.commands.leaving import exits
from paretopath.cli.commands.measuring import measure, profile
from paretopath.cli.commands.publishing import publish
from paretopath.cli.commands.retraining import evaluate, retrain, status
from paretopath.cli.commands.searching import search, worker

# in the order of --help, each with the arguments of its example
COMMANDS: dict[Callable[..., None], str] = {
    recipes: "digits_vit",
    init: "--model resnet18 --data photos --weights resnet18.pth",
    profile: "recipes/digits_vit.yaml --path smallest",
    search: "recipes/digits_vit.yaml --energy-budget 60%",
    worker: "runs/digits_vit",
    front: "runs/digits_vit --select knee",
    sensitivity: "runs/digits_vit",
    retrain: "runs/digits_vit --select count=4 --mode shared",
    status: "runs/digits_vit --wait",
    evaluate: "runs/digits_vit",
    exits: "runs/digits_vit --max-loss 0.5",
    measure: "runs/digits_vit --batch-size 16",
    publish: "runs/magnet runs/eyeriss",
}

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command, example in COMMANDS.items():
    app.command(epilog=f"Example: paretopath {command.__name__} {example}")(command)


def _show_version(asked: bool) -> None:
    if asked:
        print(f"paretopath {version('paretopath')}")
        raise typer.Exit


@app.callback()
def options(
    show_version: Annotated[
        bool,
        typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True),
    ] = False,
) -> None:
    """Search, retrain and deploy the execution paths of a vision model under an energy budget."""


def main() -> None:
    """Runs the command that was typed; however it ends, no traceback (:mod:`.faults`)."""
    sys.exit(faults.run(lambda: app(standalone_mode=False)))
