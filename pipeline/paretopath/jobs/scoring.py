"""What scores the candidates of a search: racing, on features that are computed once."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from paretopath.elastic import ElasticModel
from paretopath.evaluation.evaluator import Evaluator
from paretopath.evaluation.source import AccuracySource, BatchedSource
from paretopath.paths import ExecutionPath, IndexMatrix, SearchSpace
from paretopath.policies.evaluation import LeavingEvaluator
from paretopath.policies.shares import LeavingSpace
from paretopath.recipe import Recipe
from paretopath.run import Scoring
from paretopath.search.candidates import Pricer
from paretopath.search.racing import Floats, Racer


def full_evaluator(scoring: Scoring, model: ElasticModel, recipe: Recipe) -> AccuracySource:
    """Scores paths on all validation images, in a random order that is fixed.

    Args:
        scoring: the images.
        model: with the searched weights.
        recipe: its search has the seed of the order, its accuracy the memory for features.
    """
    return scoring.fitted(_shared_steps(scoring, model, recipe))


def search_evaluator(
    scoring: Scoring,
    model: ElasticModel,
    recipe: Recipe,
    *,
    pricer: Pricer,
    races: Path,
    leaving: LeavingSpace | None = None,
) -> AccuracySource:
    """Scores the candidates of a search.

    Args:
        scoring: the images.
        model: with the searched weights.
        recipe: says how.
        pricer: the costs of its paths.
        races: where finished paths' accuracies on shares of the images are kept.
        leaving: the space of the candidates where they are paths with policies.
    """
    evaluator: BatchedSource = scoring.fitted(_shared_steps(scoring, model, recipe))
    cost = recipe.search.cost
    if leaving is not None:
        evaluator = LeavingEvaluator(evaluator, model, leaving, cost_of(pricer, cost))
    racing = recipe.search.racing
    if racing is None:
        return evaluator
    return Racer(
        evaluator,
        path_costs(leaving or scoring.space, pricer, cost),
        racing=racing,
        seed=recipe.search.seed,
        spared=[(leaving or scoring.space).full],
        folder=races,
    )


def _shared_steps(scoring: Scoring, model: ElasticModel, recipe: Recipe) -> Evaluator:
    """The evaluator that runs steps which paths share once, on images in random order."""
    from paretopath.data.mixing import Mixed  # imports torchvision, which takes seconds

    mixed = Mixed(scoring.data.validation, seed=recipe.search.seed)
    return Evaluator(
        model,
        replace(scoring.data, validation=mixed).loader("validation"),
        scoring.task,
        device=scoring.device,
        precision=scoring.precision,
        space=scoring.space,
        feature_bytes=recipe.accuracy.feature_mb * 2**20,
    )


def path_costs(
    space: SearchSpace, pricer: Pricer, cost: str
) -> Callable[[Sequence[ExecutionPath]], Floats]:
    """What a search minimises, for each path."""
    of = cost_of(pricer, cost)
    return lambda paths: of(space.encode(paths))


def cost_of(pricer: Pricer, cost: str) -> Callable[[IndexMatrix], Floats]:
    """What a search minimises, for canonical rows."""
    return lambda rows: np.asarray(pricer.encoded(rows)[cost], dtype=float)
