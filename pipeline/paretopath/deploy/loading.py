"""What can be deployed of a run, from the files of its directory alone."""

import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from paretopath.costs import CostName
from paretopath.deploy.chooser import Option, worth_having
from paretopath.deploy.preprocessing import Preprocessing
from paretopath.elastic import ElasticModel
from paretopath.elastic.exits import exits_on_the_way
from paretopath.elastic.own import OwnFolder, PathTensors
from paretopath.elastic.registry import create_space
from paretopath.elastic.repair import repairable
from paretopath.errors import InvalidValueError, RunDirectoryError, nearest
from paretopath.front import DynamicPoint, Front
from paretopath.paths import ExecutionPath
from paretopath.recipe import load_resolved
from paretopath.run.directory import RunDirectory
from paretopath.tasks.registry import create_task
from paretopath.tasks.task import Task
from paretopath.weights.files import load_into

WEIGHTS = ("shared", "closed_form", "searched")
"""The weights that a run may hold for many paths; of equals the first are taken.

Those of ``closed_form`` are the searched ones with other solutions for single paths.
"""


@dataclass(frozen=True)
class Deployable:
    """The parts of a dynamic model.

    Attributes:
        models: by the name of their weights.
        options: each path once, with the best of these weights for it.
        policies: by which images leave paths early; of those whose weights are here.
        cost: that the front traded against accuracy.
        task: the recipe's.
        preprocessing: how the recipe makes images.
    """

    models: Mapping[str, ElasticModel]
    options: tuple[Option, ...]
    policies: tuple[DynamicPoint, ...]
    cost: CostName
    task: Task
    preprocessing: Preprocessing


def load_deployable(
    run_dir: Path | str, *, device: torch.device | str, weights: Collection[str] | None = None
) -> Deployable:
    """Reads what :meth:`~paretopath.deploy.dynamic_model.DynamicModel.load` needs; see there."""
    files = RunDirectory(run_dir)
    if not files.recipe_file.is_file():
        raise RunDirectoryError(
            f"{run_dir} is not a run directory: it holds no {files.recipe_file.name}; "
            f"`paretopath search RECIPE` makes one"
        )
    recipe = load_resolved(files.recipe_file)
    front = files.front()
    there = _weights_there(files, weights)
    space = create_space(recipe.space.name, **recipe.space.options)
    model = space.build()
    options = _options(files, front, there)
    needed = _needed(options, front, model)
    if not needed:
        raise RunDirectoryError(
            f"no path of {files.front_file} was measured with {there[0]} weights"
        )
    best: dict[str, Option] = {}
    for option in options:
        held = best.get(option.point.id)
        if option.weights in needed and (held is None or option.accuracy > held.accuracy):
            best[option.point.id] = option
    loaded: dict[Path, ElasticModel] = {}
    for name in needed:
        file = _file(files, name)
        if file not in loaded:
            loaded[file] = space.build() if loaded else model
            load_into(loaded[file], file)
    for file, elastic in loaded.items():
        here = [name for name in WEIGHTS if name in needed and _file(files, name) == file]
        ways = [(o.point.path, o.weights) for o in best.values() if o.weights in here]
        ways += [(p.path, p.weights) for p in front.policies if p.weights in here]
        own = _own(files, elastic, ways, is_repaired=recipe.calibration.repair)
        elastic.to(device).own = {path: tensors.to(device) for path, tensors in own.items()}
        add_exits(files, elastic, [path for path, _ in ways], here)
    models = {name: loaded[_file(files, name)] for name in needed}
    _share_equal_tensors([*loaded.values()])
    return Deployable(
        models=models,
        options=tuple(best.values()),
        policies=tuple(point for point in front.policies if point.weights in models),
        cost=front.cost,
        task=create_task(recipe.task, training=recipe.retrain),
        preprocessing=Preprocessing(space.input_shape, recipe.data),
    )


def _file(files: RunDirectory, weights: str) -> Path:
    if weights == "shared":
        return files.retrained_dir(weights) / files.weights_file.name
    return files.weights_file


def _weights_there(files: RunDirectory, wanted: Collection[str] | None) -> list[str]:
    """The names of the weights that the run holds and the caller wants."""
    for name in wanted or ():
        if name not in WEIGHTS:
            raise InvalidValueError(f"there are no weights {name!r}; {nearest(name, WEIGHTS)}")
    there = [
        name
        for name in WEIGHTS
        if (wanted is None or name in wanted) and _file(files, name).is_file()
    ]
    if not there:
        names = wanted if wanted is not None else WEIGHTS
        places = " or ".join(str(_file(files, name)) for name in names)
        raise RunDirectoryError(f"{files.directory} holds no weights to deploy: no {places}")
    return there


def _options(files: RunDirectory, front: Front, weights: Collection[str]) -> list[Option]:
    """Each path of a front, the full one too, with each of the weights it was measured with."""
    points = front.everyone.values()
    options = []
    for mode in ("shared", "closed_form"):
        there = _finished(files, mode) if mode in weights else set()
        options += [
            Option(point, mode, point.retrained[mode].accuracy)
            for point in points
            if point.id in there and mode in point.retrained
        ]
    if "searched" in weights:
        options += [Option(point, "searched", point.accuracy) for point in points]
    return options


def _finished(files: RunDirectory, mode: str) -> set[str]:
    """The ids of the paths that a retraining on disk was for; none of them before it is finished,
    when the front still has the results of one before.
    """
    try:
        content = json.loads((files.retrained_dir(mode) / "result.json").read_text())
    except FileNotFoundError:
        return set()
    return {ExecutionPath(entry["path"]).id for entry in content["results"]}


def _needed(options: Sequence[Option], front: Front, model: ElasticModel) -> list[str]:
    """The weights that some budget asks for, with policies or without, and those of the full path
    if it can be left early.
    """
    wanted = {option.weights for option in worth_having(options)}
    wanted |= {point.weights for point in front.policies}
    if len(exits_on_the_way(model, model.space.full)) > 1:
        full = [option for option in options if option.point.id == front.full.id]
        wanted |= {max(full, key=lambda option: option.accuracy).weights} if full else set()
    there = {option.weights for option in options}
    return [name for name in WEIGHTS if name in wanted & there]


def _own(
    files: RunDirectory,
    model: ElasticModel,
    ways: Sequence[tuple[ExecutionPath, str]],
    *,
    is_repaired: bool,
) -> dict[ExecutionPath, PathTensors]:
    """What paths have for themselves under their weights, those that do.

    Raises:
        RunDirectoryError: a path was scored with re-solved weights that are not there.
    """
    found, solves = {}, repairable(model)
    for way, weights in ways:
        path = model.space.canonical(way)
        folder = own_folder(files, weights)
        kept = folder[path]
        is_solved = weights == "closed_form" or (weights == "searched" and is_repaired)
        if kept is None and is_solved and solves:
            raise RunDirectoryError(
                f"path {path.id} was scored with weights that were re-solved for it, but "
                f"{folder.file(path)} is not there; copy {folder.folder.name}/ along with the "
                f"weights, or run `paretopath evaluate {files.directory}` where the data are"
            )
        if kept is not None and kept.tensors:
            found[path] = kept
    return found


def add_exits(
    files: RunDirectory,
    model: ElasticModel,
    paths: Iterable[ExecutionPath],
    weights: Collection[str],
) -> None:
    """Gives a model what the paths to the exits on the way of some paths have for themselves, so
    that these exits run with it; where nothing is kept, with the model's own.

    Args:
        files: of the run.
        model: on its device; what it knows of paths stays.
        paths: of its space.
        weights: that it runs with, by name; of those that know a path the first counts.
    """
    device = next(model.parameters()).device
    known = dict(model.own)
    for way in dict.fromkeys(e.path for path in paths for e in exits_on_the_way(model, path)):
        found = (own_folder(files, name)[way] for name in WEIGHTS if name in weights)
        kept = next((tensors for tensors in found if tensors is not None), None)
        if way not in known and kept is not None and kept.tensors:
            known[way] = kept.to(device)
    model.own = known


def own_folder(files: RunDirectory, weights: str) -> OwnFolder:
    """Where paths with these weights keep what they have for themselves."""
    return files.own(None if weights == "searched" else weights)


def _share_equal_tensors(models: Sequence[ElasticModel]) -> None:
    """Keeps once what several models have alike: what retraining left as it was, and the moments
    of calibration.
    """
    first, *others = models
    held = _tensors(first)
    for other in others:
        for name, tensor in _tensors(other).items():
            if name in held and torch.equal(held[name], tensor):
                tensor.data = held[name].data


def _tensors(model: ElasticModel) -> dict[str, Tensor]:
    return dict(model.named_parameters()) | dict(model.named_buffers())
