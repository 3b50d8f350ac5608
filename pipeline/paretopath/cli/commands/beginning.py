"""Where to begin: recipes to copy, and one for a model and images of one's own."""

from pathlib import Path
from typing import Annotated, Any

import typer
import yaml

from paretopath.cli.arguments import Json
from paretopath.cli.output import consoles, print_json, quiet_libraries
from paretopath.errors import InvalidValueError
from paretopath.files import require_file_place, write_atomically

Force = Annotated[bool, typer.Option("--force", help="Replace a file that exists.")]


def recipes(
    name: Annotated[
        str | None, typer.Argument(help="One to copy into this folder.", show_default=False)
    ] = None,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """List the recipes that come with paretopath, or copy one into this folder."""
    from paretopath.recipe.shipped import shipped_recipe, shipped_recipes

    out, _ = consoles()
    if name is not None:
        shipped = shipped_recipe(name)
        target = Path(shipped.file.name)
        _require_free(target, force=force)
        write_atomically(target, shipped.file.read_bytes())
        if as_json:
            print_json({"recipe": str(target), "needs": list(shipped.needs)})
            return
        needs = f" It needs {' and '.join(shipped.needs)}." if shipped.needs else ""
        out.print(f"Copied: {target}.{needs}")
        out.print(f"Next: paretopath search {target} --dry-run")
        return
    known = shipped_recipes().values()
    if as_json:
        rows = [{"name": r.name, "about": r.about, "needs": list(r.needs)} for r in known]
        print_json({"recipes": rows})
        return
    from paretopath.cli.tables.recipes import recipes_table

    out.print(recipes_table(list(known)))
    out.print("\nCopy one into this folder: paretopath recipes NAME")


def init(
    model: Annotated[
        str | None,
        typer.Option(
            help="timm's or torchvision's name, module:callable, or a folder of transformers'.",
            show_default=False,
        ),
    ] = None,
    data: Annotated[
        Path | None,
        typer.Option(help="Images, one folder a class, in splits or not.", show_default=False),
    ] = None,
    weights: Annotated[
        str | None, typer.Option(help="A file of weights, FILE#KEY for those under a key.")
    ] = None,
    hardware: Annotated[
        str | None,
        typer.Option(help="A preset, or device for this machine. [default: magnet-16nm]"),
    ] = None,
    budget: Annotated[
        str | None, typer.Option(help="No path above it: 70% of the full path, 12.5mJ, 8ms.")
    ] = None,
    size: Annotated[
        int | None, typer.Option(min=8, max=4096, help="Side of the images that the model gets.")
    ] = None,
    space: Annotated[
        str, typer.Option(help="blocks for any model; vit for one of timm's, with exits.")
    ] = "blocks",
    argument: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE for the model's constructor; again for more."),
    ] = None,
    output: Annotated[Path, typer.Option(help="The recipe to write.")] = Path("recipe.yaml"),
    interactive: Annotated[
        bool, typer.Option("--interactive", help="Ask for what is not given.")
    ] = False,
    force: Force = False,
    as_json: Json = False,
) -> None:
    """Write a recipe for a model and a folder of images, that runs as it stands."""
    _require_free(output, force=force)
    if interactive:
        model = model or _asked("Model (timm, torchvision, or module:callable)")
        data = data or Path(_asked("Folder of images"))
        hardware = hardware or _asked("Hardware (a preset, or device)", default="magnet-16nm")
        budget = budget or _asked("Budget (such as 60%; nothing for none)", default="") or None
    if model is None or data is None:
        missing = "--model" if model is None else "--data"
        raise InvalidValueError(
            f"init needs a model and a folder of images, but {missing} is not given; "
            f"--interactive asks for them"
        )
    _refuse_wrong_names(hardware, space)
    from paretopath import jobs
    from paretopath.cli.progressing import Progressing
    from paretopath.cli.tables.beginning import found_json, found_table

    out, err = consoles()
    with quiet_libraries(), Progressing(err, "recipe") as bar:
        drafted = jobs.draft(
            model,
            data,
            space=space,
            size=size,
            weights=weights,
            hardware=hardware or "magnet-16nm",
            budget=budget,
            arguments=_arguments(argument or []),
        )
        drafted, plan = jobs.write_recipe(drafted, output, on_phase=bar.phase)
    if as_json:
        print_json({"recipe": str(output), **found_json(drafted, plan)})
        return
    out.print(found_table(drafted, plan))
    out.print(f"\nWritten: {output}")
    out.print(f"Next: paretopath search {output}")


def _refuse_wrong_names(hardware: str | None, space: str) -> None:
    """Refuses a typo before anything that takes seconds to import."""
    from paretopath import plugins
    from paretopath.recipe.presets import require_preset

    if hardware is not None:
        require_preset(hardware, other="device")
    plugins.require(plugins.FAMILIES, space, kind="search space")


def _arguments(given: list[str]) -> dict[str, Any]:
    """NAME=VALUE by name; values as a recipe would have them."""
    found: dict[str, Any] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not (equals and name.isidentifier()):
            raise InvalidValueError(f"--argument must be NAME=VALUE, but got {text!r}")
        try:
            found[name] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise InvalidValueError(
                f"--argument {name} must be a number, a text, a list or a mapping, "
                f"but got {value!r}"
            ) from error
    return found


def _asked(question: str, default: str | None = None) -> str:
    try:
        # on standard error, so that standard output stays for results
        return str(typer.prompt(question, default=default, err=True)).strip()
    except typer.Abort as error:
        raise KeyboardInterrupt from error


def _require_free(file: Path, *, force: bool) -> None:
    require_file_place(file)
    if file.exists() and not force:
        raise InvalidValueError(f"{file} exists already; --force replaces it")
