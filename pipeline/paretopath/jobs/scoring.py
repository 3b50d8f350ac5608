"""What scores the candidates of a search: racing, on features that are computed once."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from paretopath.elastic import ElasticModel
from paretopath.evaluation.batch_norm import RecalibratingEvaluator
from paretopath.evaluation.evaluator import Evaluator
from paretopath.paths import ExecutionPath
from paretopath.run import Run
from paretopath.search.racing import Floats, Racer, RacingSettings


def full_evaluator(run: Run, model: ElasticModel) -> Evaluator | RecalibratingEvaluator:
    """Scores paths of a run's space on all validation images, in a random order that is fixed.

    Args:
        run: whose recipe says how.
        model: with the searched weights.
    """
    plain = run.evaluator(model, "validation")
    if not isinstance(plain, Evaluator):
        return plain
    from paretopath.data.mixing import Mixed  # imports torchvision, which takes seconds

    mixed = Mixed(run.data.validation, seed=run.recipe.search.seed)
    return Evaluator(
        model,
        replace(run.data, validation=mixed).loader("validation"),
        run.task,
        device=run.device,
        precision=run.precision,
        space=run.space,
        feature_bytes=run.recipe.accuracy.feature_mb * 2**20,
    )


def search_evaluator(run: Run, model: ElasticModel) -> Evaluator | RecalibratingEvaluator | Racer:
    """Scores the candidates of a run's search.

    Where paths have statistics of their own, each is scored alone on all images: they share no
    steps, and to measure the statistics costs as much as a race would save.

    Args:
        run: whose recipe says how.
        model: with the searched weights.
    """
    evaluator = full_evaluator(run, model)
    racing = run.recipe.search.racing
    if racing is None or not isinstance(evaluator, Evaluator):
        return evaluator
    return Racer(
        evaluator,
        lambda paths: path_costs(run, paths),
        settings=RacingSettings(
            shares=racing.shares, confidence=racing.confidence, seed=run.recipe.search.seed
        ),
        spared=[run.space.full],
        folder=run.races_dir,
    )


def path_costs(run: Run, paths: Sequence[ExecutionPath]) -> Floats:
    """What the search minimises, for each path."""
    return np.asarray(run.table(paths)[run.recipe.search.cost], dtype=float)
