"""A recipe for someone's model and images, written so that it runs as it stands."""

import os
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from paretopath.data.looking import PictureFolder, look_at
from paretopath.elastic.proposal import Proposal
from paretopath.elastic.registry import space_class
from paretopath.errors import CheckpointError
from paretopath.files import write_atomically
from paretopath.jobs.planning import SearchPlan, plan_search
from paretopath.progress import PhaseListener, unheard
from paretopath.recipe import load_recipe, parse_budget
from paretopath.recipe.presets import require_preset
from paretopath.run import Run, default_directory
from paretopath.weights.foreign import split_key

DEVICE = "device"
"""In place of a preset: paths are priced by running them here."""


@dataclass(frozen=True)
class Draft:
    """What a recipe is written from.

    Attributes:
        model: its name.
        space: the family's name.
        pictures: the folder of images.
        proposal: what the family says of the model.
        weights: a file of weights, ``FILE#KEY``, or None.
        hardware: a preset's name, or ``device``.
        budget: of what is searched, a share of the full path or an amount; None for none.
        brings_all: whether the weights lack nothing, so that nothing is trained before the search.
    """

    model: str
    space: str
    pictures: PictureFolder
    proposal: Proposal
    weights: str | None
    hardware: str
    budget: str | None
    brings_all: bool = True

    @property
    def name(self) -> str:
        """Of the recipe: folder and model."""
        folder = self.pictures.folder.resolve().name
        model = self.model.rstrip("/").rpartition("/")[-1]
        return re.sub(r"[^A-Za-z0-9._-]+", "_", f"{folder}_{model}").strip("._-")

    @property
    def cost(self) -> str:
        """What is minimised: of a device, the latency, which every device tells."""
        return "latency_ms" if self.hardware == DEVICE else "energy_mj"


def draft(
    model: str,
    folder: Path,
    *,
    space: str = "blocks",
    size: int | None = None,
    weights: str | None = None,
    hardware: str = "magnet-16nm",
    budget: str | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> Draft:
    """Looks at a model and at a folder of images.

    Args:
        model: a name that the family knows.
        folder: of images; see :func:`~paretopath.data.looking.look_at`.
        space: the family's name.
        size: side of the images that the model gets; what suits model and images if None.
        weights: a file, or ``FILE#KEY``; what stands beside the model, if anything, if None.
        hardware: a preset's name, or ``device``.
        budget: of what is searched: ``60%``, ``12.5mJ``.
        arguments: for the model's constructor, besides what the family says.

    Raises:
        ParetopathError: one of them does not exist or can't be read.
    """
    require_preset(hardware, other=DEVICE)
    if budget is not None:
        parse_budget(budget, "ms" if hardware == DEVICE else "mJ", 1.0)
    if weights is not None and not Path(split_key(weights)[0]).exists():
        raise CheckpointError(f"there is no weights file {weights}")
    pictures = look_at(folder)
    proposal = space_class(space).propose(
        model, classes=len(pictures.classes), size=size, pixels=pictures.shorter_side
    )
    if arguments:
        both = {**proposal.options.get("arguments", {}), **arguments}
        proposal = replace(proposal, options={**proposal.options, "arguments": both})
    return Draft(model, space, pictures, proposal, weights or proposal.weights, hardware, budget)


def write_recipe(
    drafted: Draft, file: Path, *, on_phase: PhaseListener = unheard
) -> tuple[Draft, SearchPlan]:
    """Writes a recipe once all that it names has been resolved and priced, as a search would.

    Args:
        drafted: what it says.
        file: its name; one that exists is replaced.
        on_phase: hears of data, weights and pricing.

    Returns:
        What was written, and what its search would do.

    Raises:
        ParetopathError: whatever the search would be refused for; nothing is written then.
    """
    trial = file.with_name(f".{file.stem}.{secrets.token_hex(4)}.yaml")
    try:
        write_atomically(trial, recipe_text(drafted, file))
        recipe = load_recipe(trial)
        plan = plan_search(Run(default_directory(recipe), recipe), fresh=True, on_phase=on_phase)
        if plan.weights.new:
            drafted = replace(drafted, brings_all=False)
            write_atomically(trial, recipe_text(drafted, file))
            load_recipe(trial)
        os.replace(trial, file)
    finally:
        trial.unlink(missing_ok=True)
    return drafted, plan


def recipe_text(drafted: Draft, file: Path) -> str:
    """The recipe as YAML with comments.

    Args:
        drafted: what it says.
        file: where it will be, for the names of other files.
    """
    pictures = drafted.pictures
    sections = [
        f"# {drafted.model} on the images of {pictures.folder}: written by `paretopath init`.\n"
        f"#   paretopath search {file}\n"
        f"#   paretopath retrain runs/{drafted.name}\n"
        f"name: {drafted.name}",
        "task: {name: classification}",
        _space(drafted),
        _weights(drafted, file),
        _data(drafted, file),
        _hardware(drafted),
        *_learning(drafted),
        _search(drafted),
        "tracking: {mode: disabled} # auto: Weights & Biases, online if a key is configured",
    ]
    return "\n\n".join(sections) + "\n"


def _space(drafted: Draft) -> str:
    options = _yaml(drafted.proposal.options, indent=4)
    return f"space:\n  name: {drafted.space}\n  options:\n{options}"


def _weights(drafted: Draft, file: Path) -> str:
    if drafted.weights is not None:
        origin, key = split_key(drafted.weights)
        named = _named(Path(origin), file)
        return f"weights: {_text(named + (f'#{key}' if key else ''))}"
    published = drafted.proposal.published
    if published is None:
        return "weights: null # the base model is trained first; a file of weights in place of null"
    here = "downloaded, and its file named here" if "://" in published else "named here"
    return (
        f"weights: null # the base model is trained first. Published weights, {here},\n"
        f"# learn from far fewer images: {published}"
    )


def _data(drafted: Draft, file: Path) -> str:
    proposal, pictures = drafted.proposal, drafted.pictures
    side = proposal.input_shape[-1]
    resized = round(side / proposal.crop)
    origin = "of the model's published weights" if proposal.is_known else "a guess: nobody says"
    train = (
        "[{name: random_resized_crop, scale: [0.35, 1.0]}, random_horizontal_flip]"
        if drafted.brings_all
        else "null # not augmented, so that the frozen model runs over the images once"
    )
    carved = [name for name in ("validation", "test") if name not in pictures.splits]
    splits = "".join(
        f" {name}: {share},"
        for name, share in (("validation", 0.15), ("test", 0.25))
        if name in carved
    ).strip(" ,")
    lines = [
        "data:",
        f"  source: imagefolder # {len(pictures.classes)} classes",
        f"  data_dir: {_text(_named(pictures.folder, file))}",
        f"  mean: {_numbers(proposal.mean)} # {origin}",
        f"  std: {_numbers(proposal.std)}",
        *([f"  splits: {{{splits}}} # shares of train, by class"] if carved else []),
        "  transforms:",
        f"    train: {train}",
        "    evaluation:",
        f"      - {{name: resize, size: {resized}, interpolation: {proposal.interpolation}}}",
        "      - center_crop",
        f"  batch_size: {_batch(pictures.parts['train'])}",
        "  eval_batch_size: 64",
    ]
    return "\n".join(lines)


def _hardware(drafted: Draft) -> str:
    if drafted.hardware == DEVICE:
        return "hardware: {model: device} # paths run on this machine to be priced"
    return f"hardware: {{model: accelerator, preset: {drafted.hardware}}}"


def _learning(drafted: Draft) -> list[str]:
    images = drafted.pictures.parts["train"]
    if drafted.weights is None:
        train = f"train: {{epochs: {_epochs(images, 2000, 10, 100)}, lr: 1e-3, warmup_epochs: 1}}"
        rate = "3e-4"
    else:
        why = "the weights lack nothing: not used" if drafted.brings_all else "on the frozen rest"
        train = (
            "train:\n"
            f"  parameters: new # {why}; all fine-tunes everything, at lr 1e-4\n"
            f"  epochs: {_epochs(images, 300, 10, 40)}\n"
            "  lr: 3e-3\n"
            "  warmup_epochs: 1"
        )
        rate = "1e-4"
    epochs = _epochs(images, 600, 3, 20)
    retrain = (
        f"retrain: {{epochs: {epochs}, lr: {rate}, warmup_epochs: 1, mode: shared, "
        f"select: count=4}}"
    )
    return [train, retrain]


def _search(drafted: Draft) -> str:
    validation = drafted.pictures.parts["validation"]
    trials = min(200, max(40, validation))
    lines = [
        "search:",
        f"  trials: {trials} # paths; chosen by {validation:,} validation images",
        f"  cost: {drafted.cost}",
    ]
    if drafted.budget is not None:
        lines.append(f"  budgets: {{{drafted.cost}: {_text(drafted.budget)}}}")
    return "\n".join(lines)


def _batch(images: int) -> int:
    """A power of two from 8 to 64 of which an epoch has at least ten."""
    return next((size for size in (64, 32, 16) if size * 10 <= images), 8)


def _epochs(images: int, steps: int, least: int, most: int) -> int:
    """As many as make so many steps, within bounds."""
    return min(most, max(least, round(steps * _batch(images) / images)))


def _named(path: Path, file: Path) -> str:
    """A file's name from a recipe's folder, if it is below; else from the root."""
    target, folder = path.expanduser().resolve(), file.resolve().parent
    if target.is_relative_to(folder):
        return f"./{target.relative_to(folder)}"
    return str(target)


def _text(value: str) -> str:
    return value if re.fullmatch(r"[\w./-]*[A-Za-z/_][\w./-]*", value) else _quoted(value)


def _quoted(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _numbers(values: tuple[float, ...]) -> str:
    return f"[{', '.join(f'{value:g}' for value in values)}]"


def _yaml(values: Mapping[str, Any], *, indent: int) -> str:
    text = yaml.safe_dump(dict(values), default_flow_style=None, sort_keys=False).rstrip()
    return "\n".join(" " * indent + line for line in text.splitlines())
