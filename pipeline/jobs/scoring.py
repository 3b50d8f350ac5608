"""What scores the candidates of a search: racing, on features that are computed once."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pipeline.batchnorm import RecalibratingEvaluator
from pipeline.elastic import ElasticModel
from pipeline.evaluate import Evaluator
from pipeline.paths import ExecutionPath
from pipeline.racing import Floats, Racer, RacingSettings
from pipeline.run import Run


def search_evaluator(run: Run, model: ElasticModel) -> Evaluator | RecalibratingEvaluator | Racer:
    """Scores paths of a run's search on validation.

    Where paths have statistics of their own, each is scored alone on all images: they share no
    steps, and to measure the statistics costs as much as a race would save.

    Args:
        run: whose recipe says how.
        model: with the searched weights.
    """
    plain = run.evaluator(model, "validation")
    if not isinstance(plain, Evaluator):
        return plain
    from pipeline.data.mixing import Mixed  # imports torchvision, which takes seconds

    recipe = run.recipe.search
    data = replace(run.data, validation=Mixed(run.data.validation, seed=recipe.seed))
    evaluator = Evaluator(
        model,
        data.loader("validation"),
        run.task,
        device=run.device,
        precision=run.precision,
        space=run.space,
        feature_bytes=run.recipe.accuracy.feature_mb * 2**20,
    )
    if recipe.racing is None:
        return evaluator

    def cost_of(paths: Sequence[ExecutionPath]) -> Floats:
        return np.asarray(run.table(paths)[recipe.cost], dtype=float)

    return Racer(
        evaluator,
        cost_of,
        settings=RacingSettings(
            shares=recipe.racing.shares, confidence=recipe.racing.confidence, seed=recipe.seed
        ),
        spared=[run.space.full],
        folder=run.races_dir,
    )
