"""What each decision of a run's model does by itself."""

from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.jobs.scoring import full_evaluator, path_costs
from paretopath.paths import ExecutionPath
from paretopath.run import Run
from paretopath.search.single_changes import greedy_ladder, measure_sensitivity

RUNGS = 8  # of the ladder with which a search may begin


def sensitivity_run(run: Run) -> Sensitivity:
    """The sensitivity of a run's model, by what its search goes by: measured once, then read.

    Args:
        run: whose weights are there; it gets ``sensitivity.json``.

    Raises:
        CheckpointError: there are no weights yet.
        InvalidValueError: the full path's outputs are not finite.
    """
    if run.sensitivity_file.is_file():
        return Sensitivity.load(run.sensitivity_file)
    predicted = run.recipe.accuracy.source == "predictor"
    evaluator = run.predictor() if predicted else full_evaluator(run, run.load_model())
    found = measure_sensitivity(
        run.space,
        lambda paths: path_costs(run, paths),
        evaluator,
        metric=run.task.metric,
        cost=run.recipe.search.cost,
        seed=run.recipe.search.seed,
    )
    found.save(run.sensitivity_file)
    return found


def first_paths(run: Run) -> tuple[ExecutionPath, ...]:
    """What a search begins with besides the paths of every search: the recipe's own, and a ladder
    of the decisions that lose least, where the recipe asks for it.
    """
    named = tuple(run.named_paths)
    if run.recipe.search.start != "sensitivity":
        return named
    ladder = greedy_ladder(
        run.space, lambda paths: path_costs(run, paths), sensitivity_run(run), RUNGS
    )
    return (*named, *ladder)
