"""The command ``paretopath``: its commands, and how a user's mistake ends."""

import sys
from collections.abc import Callable

import typer

from paretopath.cli.commands.browsing import front, sensitivity
from paretopath.cli.commands.measuring import measure, profile
from paretopath.cli.commands.publishing import publish
from paretopath.cli.commands.retraining import evaluate, retrain, status
from paretopath.cli.commands.searching import search, worker
from paretopath.errors import ParetopathError

# in the order of --help, each with the arguments of its example
COMMANDS: dict[Callable[..., None], str] = {
    profile: "recipes/digits_vit.yaml --path smallest",
    search: "recipes/digits_vit.yaml --energy-budget 60%",
    worker: "runs/digits_vit",
    front: "runs/digits_vit --select knee",
    sensitivity: "runs/digits_vit",
    retrain: "runs/digits_vit --select count=4 --mode shared",
    status: "runs/digits_vit --wait",
    evaluate: "runs/digits_vit",
    measure: "runs/digits_vit --batch-size 16",
    publish: "runs/magnet runs/eyeriss",
}

app = typer.Typer(
    help="Search, retrain and deploy the execution paths of a vision model under an energy budget.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
for command, example in COMMANDS.items():
    app.command(epilog=f"Example: paretopath {command.__name__} {example}")(command)


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
