"""What a search would do: everything that its recipe resolves to and costs, and nothing done."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from paretopath.cost.table import PathCosts
from paretopath.costs import CostName
from paretopath.jobs.base import Learning
from paretopath.jobs.reuse import find_weights, made_from
from paretopath.jobs.starting import resolve
from paretopath.paths import Value
from paretopath.progress import PhaseListener, unheard
from paretopath.recipe import Recipe
from paretopath.run import Parts, Run, accuracy_source
from paretopath.search.candidates import Problem
from paretopath.search.storage import has_study


@dataclass(frozen=True)
class WeightsPlan:
    """How base weights will come.

    Attributes:
        how: ``kept`` in the run directory, ``taken`` from a run beside it, ``loaded`` from what the
            recipe names, ``trained``, or ``none`` where accuracies are predicted.
        origin: the file or name that they come from; of a family of models, one for each.
        epochs: of their training, or of what loaded ones lack.
        new: names of the parameters that loaded ones lack, to be trained.
        trains: ``all`` parameters, those that are ``new``, or ``none``.
        calibration_images: that calibrate them.
    """

    how: str
    origin: str | Mapping[str, str] | None = None
    epochs: int | None = None
    calibration_images: int | None = None
    new: tuple[str, ...] = ()
    trains: str = "none"


@dataclass(frozen=True)
class SearchPlan:
    """A search before it begins.

    Attributes:
        run: its directory.
        found: what is there: ``nothing``, ``a run`` that goes on, or ``a run to move`` aside.
        trials_known: finished trials that it goes on from.
        space: the family's name.
        size: paths of the space.
        decisions: the values of each decision that is open, cheapest first.
        settled: how many decisions have one value.
        left: for each module or layer that keeps its form though it might not have to: why.
        source: of the images; None without any.
        classes: of the images.
        images: how many each part has.
        accuracy: where accuracies come from.
        metric: what they are.
        hardware: what prices paths.
        cost: that falls as accuracy rises.
        budgets: upper bounds by cost.
        full: the full path's costs, for one image.
        cheapest: those of the cheapest path within the budgets.
        weights: how they will come.
        device: where models run.
        recipe: the sections ``search`` and ``launch``, as they are resolved.
    """

    run: str
    found: str
    trials_known: int
    space: str
    size: int
    decisions: Mapping[str, tuple[Value, ...]]
    settled: int
    left: Mapping[str, str]
    source: str | None
    classes: int | None
    images: Mapping[str, int]
    accuracy: str
    metric: str
    hardware: str
    cost: CostName
    budgets: Mapping[CostName, float]
    full: Mapping[CostName, float]
    cheapest: Mapping[CostName, float]
    weights: WeightsPlan
    device: str
    recipe: Recipe

    def to_json(self) -> dict[str, Any]:
        """As the plain values that JSON has."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        recipe = self.recipe.dump()
        return values | {
            "weights": asdict(self.weights),
            "recipe": {name: recipe[name] for name in ("search", "launch")},
        }


def plan_search(run: Run, *, fresh: bool = False, on_phase: PhaseListener = unheard) -> SearchPlan:
    """What `search` would do with a run. Nothing is trained, and no file written.

    Args:
        run: its directory need not exist.
        fresh: as if what the directory holds were moved aside.
        on_phase: hears of data, weights and pricing.

    Raises:
        ParetopathError: whatever a search would be refused for before it trains.
    """
    if not fresh:
        run.require_same()
    parts = resolve(run, fresh=fresh, makes_files=False, on_phase=on_phase)
    recipe, space, table = run.recipe, parts.searched, parts.table
    problem = Problem(space, parts.pricer, recipe.search.cost, parts.budgets)
    known = run.trials(space) if has_study(run.directory) and not fresh else []
    data = parts.scoring.data if parts.scoring else None
    names = ("train", "validation", "test")
    is_there = run.recipe_file.is_file()
    return SearchPlan(
        run=str(run.directory),
        found="nothing" if not is_there else "a run to move" if fresh else "a run",
        trials_known=len(known),
        space=recipe.space.name,
        size=space.size,
        decisions={d.name: d.values for d in space.decisions if len(d.values) > 1},
        settled=sum(len(d.values) == 1 for d in space.decisions),
        left=dict(parts.space.left),
        source=recipe.data.source if recipe.data else None,
        classes=data.num_classes if data else None,
        images={name: len(getattr(data, name)) for name in names} if data else {},
        accuracy=accuracy_source(recipe),
        metric=parts.task.metric,
        hardware=table.cost_model.hardware,
        cost=recipe.search.cost,
        budgets=parts.budgets,
        full=_finite(table([parts.space.full])),
        cheapest=_finite(parts.pricer.encoded(problem.cheapest)),
        weights=_weights(run, parts, fresh=fresh),
        device=str(run.device),
        recipe=recipe,
    )


def _finite(costs: PathCosts) -> dict[CostName, float]:
    """The one path's costs that are known."""
    return {name: value for name, value in costs.row(0).items() if math.isfinite(value)}


def _weights(run: Run, parts: Parts, *, fresh: bool) -> WeightsPlan:
    """As :func:`paretopath.jobs.prepare_weights` would get them."""
    recipe = run.recipe
    if parts.predictor is not None:
        return WeightsPlan("none")
    if run.weights_file.is_file() and not fresh:
        return WeightsPlan("kept", str(run.weights_file))
    fingerprint = made_from(run)
    # what is moved aside stands beside the new run
    taken = find_weights(run, fingerprint, own=fresh) if fingerprint is not None else None
    if taken is not None:
        return WeightsPlan("taken", str(taken))
    calibration = recipe.calibration
    looks = calibration.compensate or calibration.order != "magnitude"
    images = calibration.images if looks else None
    if recipe.weights is not None:
        named = recipe.weights
        origin = {k: str(v) for k, v in named.items()} if isinstance(named, dict) else str(named)
        assert parts.base is not None
        learning = Learning.of(parts.base, recipe)
        trains = "all" if learning.is_whole else "new" if learning.new else "none"
        epochs = recipe.train.epochs if learning.parameters else None
        return WeightsPlan("loaded", origin, epochs, images, tuple(learning.new), trains)
    return WeightsPlan(
        "trained", epochs=recipe.train.epochs, calibration_images=images, trains="all"
    )
