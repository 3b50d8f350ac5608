"""Policies by which images leave paths of a front early: found, tested, put on the front."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from paretopath.deploy.loading import Deployable, add_exits, load_deployable, own_folder
from paretopath.elastic import ElasticModel
from paretopath.elastic.exits import exits_on_the_way
from paretopath.evaluation.evaluator import Evaluator
from paretopath.evaluation.fitted import FittedEvaluator
from paretopath.front import Front, select
from paretopath.jobs.pictures import save_leaving
from paretopath.jobs.retraining.fitting import closed_form_scoring
from paretopath.paths import ExecutionPath
from paretopath.policies.costs import exit_costs
from paretopath.policies.outputs import ExitOutputs, gather_outputs
from paretopath.policies.points import PathPolicies, dynamic_points, split_result
from paretopath.policies.search import search_policies
from paretopath.progress import PhaseListener, unheard
from paretopath.run import Run, Scoring, budgets_of, build_scoring, build_space, build_table


@dataclass(frozen=True)
class _Way:
    """A path that images may leave early, and the weights that it runs with."""

    path: ExecutionPath
    weights: str


def exits_run(
    run: Run,
    *,
    selection: str = "all",
    on_phase: PhaseListener = unheard,
) -> Front:
    """Finds policies for paths of a front, tests them, and saves them on it.

    Each path runs once over validation and once over test, through all exits on its way, with the
    weights that a dynamic model would take for it, and what is fitted to each exit; policies are
    searched on what the exits said. The recipe's budgets hold for expected costs.

    Args:
        run: with a front and weights; its front loses the policies that it had.
        selection: which paths of the front, see :func:`paretopath.front.select`; the full one is
            among them. ``all`` means those too that are worth it only with a policy.
        on_phase: hears of reading images, of running exits, of searching.

    Raises:
        InvalidValueError: a path has no exit, or the task does not judge image by image.
    """
    front = run.front()
    found = load_deployable(run.directory, device=run.device)
    space = build_space(run.recipe).whole
    table = build_table(run, space, on_phase=on_phase)
    scoring = build_scoring(run, space, on_phase=on_phase)
    ways = _ways(front, found, selection)
    _fit(run, found, ways, scoring, on_phase)
    validation = _outputs(found, ways, scoring, "validation", on_phase)
    test = _outputs(found, ways, scoring, "test", on_phase)
    full = next(i for i, way in enumerate(ways) if way.path.id == front.full.id)
    tried = []
    for number, (way, outputs) in enumerate(zip(ways, validation, strict=True)):
        on_phase("searching policies", number, len(ways))
        costs = exit_costs(table, exits_on_the_way(found.models[way.weights], way.path))
        policies = search_policies(outputs, costs, validation[full].right[-1], cost=front.cost)
        tried.append(PathPolicies(way.path, way.weights, outputs, costs, policies))
    on_phase("searching policies", len(ways), len(ways))
    numbers = {way.path: i for i, way in enumerate(ways)}
    points = []
    budgets = budgets_of(run.recipe, front.full.costs)
    for point in dynamic_points(tried, tried[full], cost=front.cost, budgets=budgets):
        number = numbers[point.path]
        tested = split_result(
            point.policy, test[number], test[full].right[-1], tried[number].costs, front.cost
        )
        points.append(replace(point, test=tested))
    save_leaving(run, scoring, points, [validation[numbers[point.path]] for point in points])
    front = front.with_policies(points)
    front.save(run.front_file)
    return front


def _ways(front: Front, found: Deployable, selection: str) -> list[_Way]:
    """The selected paths, and the full one, with the best weights for each."""
    space = next(iter(found.models.values())).space
    chosen = front.everyone if selection == "all" else [p.id for p in select(front, selection)]
    wanted = {*chosen, front.full.id}
    return [
        _Way(space.canonical(option.point.path), option.weights)
        for option in found.options
        if option.point.id in wanted
    ]


def _fit(
    run: Run, found: Deployable, ways: Sequence[_Way], scoring: Scoring, on_phase: PhaseListener
) -> None:
    """Gives paths, and those to the exits on their way, what is fitted to them; it is kept."""
    evaluators = {
        name: _evaluator(run, scoring, name, model) for name, model in found.models.items()
    }
    for number, way in enumerate(ways):
        on_phase("fitting exits", number, len(ways))
        model, evaluator = found.models[way.weights], evaluators[way.weights]
        if isinstance(evaluator, FittedEvaluator):
            own = evaluator.own([exit_.path for exit_ in exits_on_the_way(model, way.path)])
            if way.path in own:
                model.own = {**model.own, way.path: own[way.path]}
    on_phase("fitting exits", len(ways), len(ways))
    for name, model in found.models.items():
        here = [other for other, same in found.models.items() if same is model]
        add_exits(run, model, [way.path for way in ways if way.weights == name], here)


def _evaluator(
    run: Run, scoring: Scoring, weights: str, model: ElasticModel
) -> Evaluator | FittedEvaluator:
    kept = own_folder(run, weights)
    if weights == "closed_form":
        scoring = closed_form_scoring(scoring, run.recipe.retrain)
    return scoring.evaluator(model, "validation", shared=weights == "shared", kept=kept)


def _outputs(
    found: Deployable,
    ways: Sequence[_Way],
    scoring: Scoring,
    split: Literal["validation", "test"],
    on_phase: PhaseListener,
) -> list[ExitOutputs]:
    """What the exits of each path say of the images of a split."""
    outputs = []
    for number, way in enumerate(ways):
        on_phase(f"running exits on {split}", number, len(ways))
        batches = scoring.data.loader(split)
        outputs.append(gather_outputs(found.models[way.weights], way.path, batches, found.task))
    on_phase(f"running exits on {split}", len(ways), len(ways))
    return outputs
