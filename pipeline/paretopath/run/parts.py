"""What a recipe describes, built."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from paretopath.cost import CostModel, CostTable
from paretopath.cost import create as create_cost_model
from paretopath.cost.table_file import load_table, save_table
from paretopath.costs import CostName, cost_named
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.registry import create_space
from paretopath.errors import InvalidPathError, InvalidValueError, RecipeError
from paretopath.evaluation.predictor import AccuracyPredictor, PredictableSpace, PredictorEvaluator
from paretopath.paths import ExecutionPath, SearchSpace, match_values
from paretopath.policies.shares import LeavingCosts, LeavingSpace
from paretopath.progress import PhaseListener, phase, unheard
from paretopath.recipe import Accuracy, Recipe, parse_budget
from paretopath.recipe.data import Transforms
from paretopath.run.run import Run
from paretopath.run.scoring import Scoring
from paretopath.tasks.registry import create_task, open_data
from paretopath.tasks.task import Task, require_imagewise
from paretopath.weights.files import load_into
from paretopath.weights.known import fetch_file

if TYPE_CHECKING:
    from paretopath.data import DataSplits


@dataclass(frozen=True)
class Parts:
    """What a job works with. It takes them apart and passes on what each function needs.

    Attributes:
        space: that is searched.
        table: the costs of its paths.
        budgets: upper bounds by cost, absolute: what the recipe's budgets mean for this space and
            hardware.
        named_paths: those that the recipe names for the search.
        task: with the losses of retraining.
        predictor: what predicts accuracies in place of images; None if they are measured.
        scoring: how accuracies are measured; None if the recipe has no images.
        base: with the weights that the recipe names, where they were loaded before the rest.
        leaving: the paths of the space with policies, where the recipe searches both together.
    """

    space: ElasticSpace
    table: CostTable
    budgets: Mapping[CostName, float]
    named_paths: tuple[ExecutionPath, ...]
    task: Task
    predictor: PredictorEvaluator | None
    scoring: Scoring | None
    base: ElasticModel | None = None
    leaving: LeavingSpace | None = None

    @property
    def searched(self) -> SearchSpace:
        """What trials are paths of: the space, or its paths with policies."""
        return self.leaving or self.space

    @property
    def pricer(self) -> CostTable | LeavingCosts:
        """The costs of what is searched."""
        return LeavingCosts(self.leaving, self.table) if self.leaving else self.table

    @property
    def images(self) -> Scoring:
        """The scoring of a recipe that has images; RecipeError if it has none."""
        if self.scoring is None:
            raise RecipeError("this needs images, but the recipe has no section data")
        return self.scoring


def assemble(run: Run, *, on_phase: PhaseListener = unheard) -> Parts:
    """Builds all that a run's recipe describes but its model; writes nothing.

    Args:
        run: its recipe says what.
        on_phase: hears of opening and reading images and, as long as the table of costs is used,
            of pricing.

    Raises:
        ParetopathError: something that the recipe names does not exist, or does not fit the rest.
    """
    recipe = run.recipe
    space = build_space(recipe)
    table = build_table(run, space, on_phase=on_phase)
    predicts = recipe.accuracy.source == "predictor"
    leaving = build_searched(recipe, space)
    scoring = None
    if recipe.data is not None:
        scoring = build_scoring(run, space, on_phase=on_phase)
    return Parts(
        space=space,
        table=table,
        budgets=absolute_budgets(recipe, table),
        named_paths=named_paths(recipe, space),
        task=create_task(recipe.task, training=recipe.retrain),
        predictor=load_predictor(recipe.accuracy, space) if predicts else None,
        scoring=scoring,
        leaving=leaving if isinstance(leaving, LeavingSpace) else None,
    )


def build_space(recipe: Recipe) -> ElasticSpace:
    """The space that a recipe searches."""
    section = recipe.space
    space = create_space(section.name, **section.options)
    return space.restricted(match_values(space, section.restrict)) if section.restrict else space


def build_searched(recipe: Recipe, space: ElasticSpace) -> SearchSpace:
    """What a recipe's trials are paths of: a space, or its paths with policies.

    Raises:
        InvalidValueError: policies are to be searched, and the paths pass no exits, or the task
            does not judge image by image.
    """
    if not recipe.exits.search:
        return space
    require_imagewise(create_task(recipe.task, training=recipe.retrain))
    return LeavingSpace(space)


def build_table(run: Run, space: ElasticSpace, *, on_phase: PhaseListener = unheard) -> CostTable:
    """The costs of a run's paths, with those that its directory keeps."""
    hardware = run.recipe.hardware
    cost_model: CostModel
    if hardware.model == "device":
        options = {"device": str(run.device)} | hardware.device_options
        measured = partial(on_phase, "measuring forms of units")
        cost_model = create_cost_model("device", **options, progress=measured)
    else:
        cost_model = create_cost_model(
            hardware.model,
            preset=hardware.preset,
            hardware=hardware.hardware,
            mapping=hardware.mapping,
            progress=partial(on_phase, "pricing layers"),
        )
    table = CostTable(space, cost_model, progress=partial(on_phase, "tracing units"))
    load_table(table, run.costs_file)
    return table


def build_scoring(
    run: Run,
    space: ElasticSpace,
    *,
    transforms: Transforms | None = None,
    on_phase: PhaseListener = unheard,
) -> Scoring:
    """How a run's accuracies are measured; RecipeError if the recipe has no images.

    Args:
        run: has the recipe.
        space: of its models.
        transforms: of images that train, in place of the recipe's.
        on_phase: hears of the opening and the reading of images.
    """
    task = create_task(run.recipe.task, training=run.recipe.retrain)
    with phase(on_phase, "opening the data"):
        images = open_images(run.recipe, space, transforms)
    images.tell(on_phase)
    return Scoring.of(run.recipe, space, images, task, run.device)


def keep_table(table: CostTable, file: Path, *, sampled: int = 0) -> None:
    """Keeps what is priced for other processes, and for a search that goes on.

    Args:
        table: the costs.
        file: :attr:`RunDirectory.costs_file`.
        sampled: so many random paths are priced first.
    """
    if sampled:
        table.encoded(table.space.sample_encoded(np.random.default_rng(0), sampled))
    save_table(table, file)


def open_images(
    recipe: Recipe, space: ElasticSpace, transforms: Transforms | None = None
) -> "DataSplits":
    """The images of a recipe, those that train by other transforms if there are some; RecipeError
    if it has none.
    """
    data = recipe.data_for("this")
    if transforms is not None:
        lists = data.transforms.model_copy(update={"train": transforms})
        data = data.model_copy(update={"transforms": lists})
    return open_data(
        data,
        recipe.task,
        input_shape=space.input_shape,
        num_classes=getattr(space, "num_classes", None),
    )


def load_model(space: ElasticSpace, weights: Path, run: Run) -> ElasticModel:
    """The elastic model of a space with the weights of a file, on the run's device."""
    model = space.build()
    load_into(model, weights)
    return model.to(run.device)


def load_predictor(accuracy: Accuracy, space: ElasticSpace) -> PredictorEvaluator:
    """What predicts accuracies in place of data; downloaded once if the recipe gives a URL.

    Raises:
        InvalidValueError: the space has no features for a predictor.
        CheckpointError: the file can't be had, or its checksum is not the recipe's.
    """
    if not isinstance(space, PredictableSpace):
        raise InvalidValueError(
            f"accuracy.source predictor needs a space that a predictor knows, "
            f"but {type(space).__name__} is none"
        )
    assert accuracy.predictor is not None
    file = fetch_file(accuracy.predictor, sha256=accuracy.sha256)
    return PredictorEvaluator(space, AccuracyPredictor.load(file))


def accuracy_source(recipe: Recipe) -> str:
    """Where the accuracies of a search come from, for people."""
    predictor = recipe.accuracy.predictor
    if predictor is None:
        return "measured on validation"
    return f"predicted by {predictor.rsplit('/', 1)[-1]}, not measured"


def named_paths(recipe: Recipe, space: ElasticSpace) -> tuple[ExecutionPath, ...]:
    """The paths that a recipe names for the search.

    Raises:
        InvalidPathError: a file that can't be read, or no path of the space.
    """
    return tuple(
        read_path(space, path) if isinstance(path, str) else space.canonical(path)
        for path in recipe.search.paths
    )


def absolute_budgets(recipe: Recipe, table: CostTable) -> dict[CostName, float]:
    """Upper bounds by cost: what a recipe's budgets mean for this space and hardware."""
    if not recipe.search.limits:
        return {}  # nothing is priced
    return budgets_of(recipe, table([table.space.full]).row(0))


def budgets_of(recipe: Recipe, full: Mapping[CostName, float]) -> dict[CostName, float]:
    """The same by what the full path costs."""
    return {
        name: parse_budget(text, cost_named(name).unit, full[name])
        for name, text in recipe.search.limits.items()
    }


def read_path(space: ElasticSpace, text: str) -> ExecutionPath:
    """A path as the command line names it.

    Args:
        space: whose.
        text: ``full``, ``smallest``, or a JSON file: an object of decisions, a point of a front, or
            a published configuration that the family knows.

    Raises:
        InvalidPathError: no such file, not JSON, or decisions that the space does not have.
    """
    if text in ("full", "smallest"):
        path: ExecutionPath = getattr(space, text)
        return path
    try:
        content = json.loads(Path(text).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidPathError(
            f"a path must be full, smallest or a JSON file of decisions, "
            f"but {text!r} can't be read: {error}"
        ) from error
    if isinstance(content, dict):
        content = content.get("path", content)
    if not isinstance(content, dict):
        raise InvalidPathError(f"{text} must hold an object of decisions, but got {content!r:.60}")
    return space.parse(content)
