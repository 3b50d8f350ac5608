"""A run: its files, and the objects that its recipe describes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
import torch
from optuna.trial import TrialState

from paretopath.calibration.moments import draw
from paretopath.cost import CostModel, CostTable
from paretopath.cost import create as create_cost_model
from paretopath.cost.table_file import load_table, save_table
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.batch_norm import StatisticsFolder, batch_norms
from paretopath.elastic.own import PathTensors
from paretopath.elastic.registry import create_space
from paretopath.errors import InvalidPathError, InvalidValueError, RunDirectoryError
from paretopath.evaluation.batch_norm import RecalibratingEvaluator
from paretopath.evaluation.evaluator import Batch, Evaluator
from paretopath.evaluation.predictor import AccuracyPredictor, PredictableSpace, PredictorEvaluator
from paretopath.files import write_atomically
from paretopath.front import COSTS, Front, Point, State, TrialRecord
from paretopath.paths import ExecutionPath, match_values
from paretopath.recipe import Recipe, load_recipe, parse_budget
from paretopath.run.changes import require_same
from paretopath.run.directory import RunDirectory
from paretopath.run.environment import environment
from paretopath.search.record import Evaluated, evaluated, load_study
from paretopath.tasks.registry import create_task, open_data
from paretopath.tasks.task import Task
from paretopath.weights.files import load_into
from paretopath.weights.known import fetch_file

if TYPE_CHECKING:
    from paretopath.data import DataSplits, SplitName

BATCH_NORM_IMAGES = 256  # on which a path's statistics are measured, if the recipe does not say

_STATES: Mapping[TrialState, State] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


class Run(RunDirectory):
    """One run directory.

    Args:
        directory: where its files are.
        recipe: resolved; the one that the directory holds.
        device: where its models run; the first GPU if there is one, else the CPU.
    """

    def __init__(
        self, directory: Path | str, recipe: Recipe, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__(directory)
        self.recipe = recipe
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self._drawn: dict[int, list[Batch]] = {}  # calibration images by how many

    @classmethod
    def open(cls, directory: Path | str, *, device: torch.device | str | None = None) -> Self:
        """The run of a directory that exists.

        Raises:
            RunDirectoryError: there is none.
        """
        file = RunDirectory(directory).recipe_file
        if not file.is_file():
            raise RunDirectoryError(
                f"{directory} is not a run directory: it holds no {file.name}; "
                f"`paretopath search RECIPE` makes one"
            )
        return cls(directory, load_recipe(file), device=device)

    @classmethod
    def start(
        cls, directory: Path | str, recipe: Recipe, *, device: torch.device | str | None = None
    ) -> Self:
        """A new run, or the one that the directory holds if its recipe asks for the same.

        Raises:
            RunDirectoryError: it holds a run of another recipe.
        """
        run = cls(directory, recipe, device=device)
        if run.recipe_file.is_file():
            require_same(recipe, load_recipe(run.recipe_file), Path(directory))
        run.directory.mkdir(parents=True, exist_ok=True)
        recipe.save(run.recipe_file)
        write_atomically(run.environment_file, json.dumps(environment(run.device), indent=1) + "\n")
        return run

    @cached_property
    def space(self) -> ElasticSpace:
        """The space that is searched."""
        section = self.recipe.space
        space = create_space(section.name, **section.options)
        return (
            space.restricted(match_values(space, section.restrict)) if section.restrict else space
        )

    @property
    def precision(self) -> torch.dtype | None:
        """Of the forward passes that measure; None for the weights' own."""
        wanted = self.recipe.accuracy.precision
        if wanted == "bfloat16" or (wanted == "auto" and self.device.type == "cuda"):
            return torch.bfloat16
        return None

    @cached_property
    def table(self) -> CostTable:
        """The costs of its paths."""
        hardware = self.recipe.hardware
        cost_model: CostModel
        if hardware.model == "device":
            options = {"device": str(self.device)} | hardware.device_options
            cost_model = create_cost_model("device", **options)
        else:
            cost_model = create_cost_model(
                hardware.model,
                preset=hardware.preset,
                hardware=hardware.hardware,
                mapping=hardware.mapping,
            )
        table = CostTable(self.space, cost_model)
        load_table(table, self.costs_file)
        return table

    def save_table(self, *, sampled: int = 0) -> None:
        """Keeps what is priced for other processes, and for a search that goes on.

        Args:
            sampled: so many random paths are priced first.
        """
        if sampled:
            self.table.encoded(self.space.sample_encoded(np.random.default_rng(0), sampled))
        save_table(self.table, self.costs_file)

    @cached_property
    def data(self) -> "DataSplits":
        """Its images; RecipeError if the recipe has none."""
        return open_data(
            self.recipe.data_for("this"),
            self.recipe.task,
            input_shape=self.space.input_shape,
            num_classes=getattr(self.space, "num_classes", None),
        )

    @cached_property
    def task(self) -> Task:
        """Its task, with the losses of retraining."""
        return create_task(self.recipe.task, training=self.recipe.retrain)

    def load_model(self, weights: Path | None = None) -> ElasticModel:
        """The elastic model with the searched weights, or those of another file, on the run's
        device.
        """
        model = self.space.build()
        load_into(model, weights or self.weights_file)
        return model.to(self.device)

    @property
    def accuracy_source(self) -> str:
        """Where the accuracies of the search come from, for people."""
        predictor = self.recipe.accuracy.predictor
        if predictor is None:
            return "measured on validation"
        return f"predicted by {predictor.rsplit('/', 1)[-1]}, not measured"

    def predictor(self) -> PredictorEvaluator:
        """What predicts accuracies in place of data; downloaded once if the recipe gives a URL.

        Raises:
            InvalidValueError: the space has no features for a predictor.
            CheckpointError: the file can't be had, or its checksum is not the recipe's.
        """
        if not isinstance(self.space, PredictableSpace):
            raise InvalidValueError(
                f"accuracy.source predictor needs a space that a predictor knows, "
                f"but {self.recipe.space.name} is none"
            )
        accuracy = self.recipe.accuracy
        assert accuracy.predictor is not None
        file = fetch_file(accuracy.predictor, sha256=accuracy.sha256)
        return PredictorEvaluator(self.space, AccuracyPredictor.load(file))

    def evaluator(
        self,
        model: ElasticModel,
        split: "SplitName",
        *,
        shared: bool = False,
        keep: bool = False,
    ) -> Evaluator | RecalibratingEvaluator:
        """Scores paths of a model on ``validation`` or ``test``, each with its own batch-norm
        statistics where the recipe or the family asks for it.

        Args:
            model: of this run's space.
            split: which images.
            shared: whether shared retraining left the weights, with statistics of all its paths
                mixed.
            keep: whether the paths' statistics are kept in the run directory, and taken from there.
        """
        evaluator = Evaluator(
            model,
            self.data.loader(split),
            self.task,
            device=self.device,
            precision=self.precision,
        )
        images = self.recipe.calibration.batch_norm_images
        if images is None:
            images = BATCH_NORM_IMAGES if shared or self.space.batch_norm_per_path else 0
        if not images or not batch_norms(model):
            return evaluator
        return RecalibratingEvaluator(
            evaluator,
            self._calibration_batches(images),
            trained_on=None if shared else self.space.full,
            kept=StatisticsFolder(self.statistics_dir(shared=shared)) if keep else None,
        )

    def _calibration_batches(self, images: int) -> Sequence[Batch]:
        if images not in self._drawn:
            seed = self.recipe.calibration.seed
            loader = self.data.loader("calibration", shuffle_seed=seed)
            self._drawn[images] = list(draw(loader, images))
        return self._drawn[images]

    @cached_property
    def named_paths(self) -> tuple[ExecutionPath, ...]:
        """The paths that the recipe names for the search.

        Raises:
            InvalidPathError: a file that can't be read, or no path of the space.
        """
        named = self.recipe.search.paths
        return tuple(
            read_path(self.space, path) if isinstance(path, str) else self.space.canonical(path)
            for path in named
        )

    @cached_property
    def budgets(self) -> dict[str, float]:
        """Upper bounds by cost, absolute: what the recipe's budgets mean for this space and
        hardware.
        """
        search = self.recipe.search
        full = self.table([self.space.full]).row(0)
        budgets = {}
        if search.energy_budget is not None:
            budgets["energy_mj"] = parse_budget(search.energy_budget, "mJ", full["energy_mj"])
        if search.latency_budget is not None:
            budgets["latency_ms"] = parse_budget(search.latency_budget, "ms", full["latency_ms"])
        return budgets

    def trials(self) -> list[TrialRecord]:
        """The finished trials of the study, in order."""
        found = evaluated(load_study(self.directory), self.space)
        return [trial_record(trial) for trial in found if trial.state.is_finished()]

    def front(self) -> Front:
        """The front as last saved; RunDirectoryError if there is none yet."""
        return Front.load(self.front_file)

    def deployable(self) -> "Deployable":
        """Elastic weights and the points that they were measured with.

        The weights that shared retraining left, with the paths that it trained; else those of the
        search, with the whole front.
        """
        front = self.front()
        weights = self.retrained_dir("shared") / "weights.safetensors"
        everyone = {point.id: point for point in (*front.points, front.full)}
        retrained = [point for point in everyone.values() if "shared" in point.retrained]
        shared = weights.is_file() and bool(retrained)
        points = retrained if shared else list(everyone.values())
        kept = StatisticsFolder(self.statistics_dir(shared=shared))
        found = (kept[self.space.canonical(point.path)] for point in points)
        return Deployable(
            model=self.load_model(weights if shared else None),
            points=tuple(points),
            statistics=tuple(own for own in found if own is not None),
        )


@dataclass(frozen=True)
class Deployable:
    """What a dynamic model is made of.

    Attributes:
        model: elastic weights.
        points: what was measured with them.
        statistics: batch-norm statistics of the paths that have their own.
    """

    model: ElasticModel
    points: tuple[Point, ...]
    statistics: tuple[PathTensors, ...]


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


def trial_record(trial: Evaluated) -> TrialRecord:
    """A finished trial of the study, as fronts, reports and trackers take it."""
    return TrialRecord(
        number=trial.number,
        state=_STATES[trial.state],
        path=trial.path,
        accuracy=trial.score.value if trial.score else None,
        accuracy_error=trial.score.error if trial.score else None,
        samples=trial.score.samples if trial.score else 0,
        costs={name: trial.costs[name] for name in COSTS if name in trial.costs},
        failure=trial.failure,
    )
