"""Policies by which images leave paths of a front early: found, tested, put on the front."""

from collections.abc import Sequence
from dataclasses import replace

from paretopath.deploy.chooser import Option
from paretopath.deploy.loading import Deployable, load_deployable
from paretopath.elastic.exits import exits_on_the_way
from paretopath.front import Front, select
from paretopath.policies.costs import exit_costs
from paretopath.policies.outputs import ExitOutputs, gather_outputs
from paretopath.policies.points import PathPolicies, dynamic_points, split_result
from paretopath.policies.search import search_policies
from paretopath.progress import PhaseListener, unheard
from paretopath.run import Run, Scoring, build_scoring, build_space, build_table


def exits_run(run: Run, *, selection: str = "all", on_phase: PhaseListener = unheard) -> Front:
    """Finds policies for paths of a front, tests them, and saves them on it.

    Each path runs once over validation and once over test, through all exits on its way, with the
    weights that a dynamic model would take for it; policies are searched on what the exits said.

    Args:
        run: with a front and weights; its front loses the policies that it had.
        selection: which paths, see :func:`paretopath.front.select`; the full one is among them.
        on_phase: hears of reading images, of running exits, of searching.

    Raises:
        InvalidValueError: a path has no exit, or the task does not judge image by image.
    """
    front = run.front()
    wanted = {point.id for point in (*select(front, selection), front.full)}
    found = load_deployable(run.directory, device=run.device)
    options = [option for option in found.options if option.point.id in wanted]
    space = build_space(run.recipe).whole
    table = build_table(run, space, on_phase=on_phase)
    scoring = build_scoring(run, space, on_phase=on_phase)
    validation = _outputs(found, options, scoring, "validation", on_phase)
    test = _outputs(found, options, scoring, "test", on_phase)
    full = next(i for i, option in enumerate(options) if option.point.id == front.full.id)
    paths = []
    for number, (option, outputs) in enumerate(zip(options, validation, strict=True)):
        on_phase("searching policies", number, len(options))
        path = space.canonical(option.point.path)
        costs = exit_costs(table, exits_on_the_way(found.models[option.weights], path))
        tried = search_policies(outputs, costs, validation[full].right[-1], cost=front.cost)
        paths.append(PathPolicies(path, option.weights, outputs, costs, tried))
    on_phase("searching policies", len(options), len(options))
    by_id = {of_path.path.id: i for i, of_path in enumerate(paths)}
    points = []
    for point in dynamic_points(paths, paths[full], cost=front.cost):
        number = by_id[point.path.id]
        tested = split_result(
            point.policy, test[number], test[full].right[-1], paths[number].costs, front.cost
        )
        points.append(replace(point, test=tested))
    front = front.with_policies(points)
    front.save(run.front_file)
    return front


def _outputs(
    found: Deployable,
    options: Sequence[Option],
    scoring: Scoring,
    split: str,
    on_phase: PhaseListener,
) -> list[ExitOutputs]:
    """What the exits of each path say of the images of a split."""
    outputs = []
    for number, option in enumerate(options):
        on_phase(f"running exits on {split}", number, len(options))
        model = found.models[option.weights]
        outputs.append(
            gather_outputs(
                model,
                option.point.path,
                scoring.data.loader("validation" if split == "validation" else "test"),
                found.task,
            )
        )
    on_phase(f"running exits on {split}", len(options), len(options))
    return outputs
