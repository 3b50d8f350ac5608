"""Searches of a space whose accuracies are a formula."""

import math
from pathlib import Path

from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath, SearchSpace
from paretopath.search import Evaluated, SearchSettings, evaluated, search
from paretopath.tasks.task import Score
from tests.pipeline.analytic import IMAGES, FormulaEvaluator, FormulaPricer, analytic_space

SPACE = analytic_space()
Trials = list[tuple[int, ExecutionPath, float | None, float]]


def run(
    folder: Path,
    settings: SearchSettings,
    *,
    space: SearchSpace = SPACE,
    evaluator: FormulaEvaluator | None = None,
) -> list[Evaluated]:
    """Searches and returns the trials."""
    study = search(
        space, FormulaPricer(space), evaluator or FormulaEvaluator(space), settings, run_dir=folder
    )
    return evaluated(study, space)


def essence(trials: list[Evaluated]) -> Trials:
    """What the same seed must give again."""
    return [
        (t.number, t.path, t.score.value if t.score else None, t.costs["energy_mj"]) for t in trials
    ]


class Faulty(FormulaEvaluator):
    """Some paths have no finite accuracy, others raise."""

    def outcome(self, path: ExecutionPath) -> Score | Exception:
        if path["exit"] == 4:
            return InvalidValueError("an accuracy must be finite, but got value=nan")
        if path["exit"] == 5:
            broken = Score(0.5, 0.0, IMAGES)
            object.__setattr__(broken, "value", math.nan)
            return broken
        return super().outcome(path)
