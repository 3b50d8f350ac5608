"""What a search begins with: paths that the recipe names, and what each decision does alone."""

from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.evaluation.source import AccuracySource
from paretopath.jobs.scoring import full_evaluator, path_costs
from paretopath.paths import ExecutionPath
from paretopath.progress import PhaseListener, phase, unheard
from paretopath.run import Parts, Run, assemble, load_model
from paretopath.search.single_changes import greedy_ladder, measure_sensitivity

RUNGS = 8  # of the ladder with which a search may begin


def sensitivity_run(run: Run, *, on_phase: PhaseListener = unheard) -> Sensitivity:
    """The sensitivity of a run's model, by what its search goes by: measured once, then read.

    Args:
        run: whose weights are there; it gets ``sensitivity.json``.
        on_phase: hears how far it is.

    Raises:
        CheckpointError: there are no weights yet.
        InvalidValueError: the full path's outputs are not finite.
    """
    if run.sensitivity_file.is_file():
        return Sensitivity.load(run.sensitivity_file)
    return _measure(run, assemble(run, on_phase=on_phase), on_phase)


def first_paths(
    run: Run, parts: Parts, *, on_phase: PhaseListener = unheard
) -> tuple[ExecutionPath, ...]:
    """What a search begins with besides the paths of every search: the recipe's own, and a ladder
    of the decisions that lose least, where the recipe asks for it.
    """
    if run.recipe.search.start != "sensitivity":
        return parts.named_paths
    is_known = run.sensitivity_file.is_file()
    found = Sensitivity.load(run.sensitivity_file) if is_known else _measure(run, parts, on_phase)
    cost_of = path_costs(parts.space, parts.table, run.recipe.search.cost)
    return (*parts.named_paths, *greedy_ladder(parts.space, cost_of, found, RUNGS))


def _measure(run: Run, parts: Parts, on_phase: PhaseListener) -> Sensitivity:
    evaluator: AccuracySource
    if parts.predictor is not None:
        evaluator = parts.predictor
    else:
        model = load_model(parts.space, run.weights_file, run)
        evaluator = full_evaluator(parts.images, model, run.recipe)
    with phase(on_phase, "trying every decision alone"):
        found = measure_sensitivity(
            parts.space,
            path_costs(parts.space, parts.table, run.recipe.search.cost),
            evaluator,
            metric=parts.task.metric,
            cost=run.recipe.search.cost,
            seed=run.recipe.search.seed,
        )
    found.save(run.sensitivity_file)
    return found
