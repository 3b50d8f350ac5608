"""Every decision tried alone, and a ladder of paths from what that showed.

Every value of every decision on the full path is tried by itself, all others at their fullest. What
it loses is measured against the full path on the same images, so that the error of the difference
counts, not that of two accuracies.
"""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from paretopath.errors import InvalidValueError
from paretopath.evaluation.sensitivity import Effect, Sensitivity
from paretopath.evaluation.source import AccuracySource
from paretopath.paths import ExecutionPath, SearchSpace, Value
from paretopath.tasks.resampling import draw_resamples
from paretopath.tasks.task import ResamplingScorer, Score

Floats = npt.NDArray[np.float64]
Outcome = Score | Exception
ErrorOf = Callable[[int, Score], float]


def single_changes(space: SearchSpace) -> list[tuple[str, Value, ExecutionPath]]:
    """Every path that differs from the full one in one decision: its name, value and the path.

    A decision that the full path does not have can't be changed alone.
    """
    full = space.full
    return [
        (name, value, space.canonical({**full, name: value}))
        for name in full
        for value in space[name].distinct
        if value != full[name]
    ]


def measure_sensitivity(
    space: SearchSpace,
    cost_of: Callable[[Sequence[ExecutionPath]], Floats],
    evaluator: AccuracySource,
    *,
    metric: str,
    cost: str,
    seed: int = 0,
) -> Sensitivity:
    """Scores every single change on all images. Paths whose outputs are not finite are left out.

    Args:
        space: the paths.
        cost_of: the costs (n,) of paths.
        evaluator: scores paths on all images. Errors are those of paired differences where its
            scorers can be resampled.
        metric: the accuracy's name.
        cost: the cost's name.
        seed: of the resamples behind the errors.

    Raises:
        InvalidValueError: the full path's outputs are not finite.
    """
    changes = single_changes(space)
    paths = [space.full, *(path for _, _, path in changes)]
    (full, *scores), error_of = _scores(evaluator, paths, seed)
    if not isinstance(full, Score):
        raise full
    costs = cost_of(paths)
    effects = []
    rows = zip(changes, scores, costs[1:].tolist(), strict=True)
    for index, ((name, value, _), score, path_cost) in enumerate(rows, start=1):
        if isinstance(score, Score):
            effects.append(
                Effect(
                    decision=name,
                    value=value,
                    accuracy=score.value,
                    lost=full.value - score.value,
                    lost_error=error_of(index, score),
                    saved=1 - path_cost / float(costs[0]),
                )
            )
    return Sensitivity(metric, cost, full.value, full.samples, tuple(effects))


def _scores(
    evaluator: AccuracySource, paths: Sequence[ExecutionPath], seed: int
) -> tuple[list[Outcome], ErrorOf]:
    """What paths come to, and the standard error of a path's difference to the first one."""
    evaluation = evaluator.begin(paths)
    evaluation.advance(range(len(paths)))
    scores: list[Outcome] = [evaluation.score(index) for index in range(len(paths))]
    scorers, first = evaluation.scorers, scores[0]
    reference = scorers[0] if scorers else None
    if not (isinstance(reference, ResamplingScorer) and isinstance(first, Score)):
        return scores, _unpaired(first)
    drawn = draw_resamples(first.samples, seed=seed)
    resampled = reference.resampled(drawn)

    def paired(index: int, _: Score) -> float:
        other = scorers[index]
        assert isinstance(other, ResamplingScorer)
        return float(np.std(other.resampled(drawn) - resampled, ddof=1))

    return scores, paired


def _unpaired(full: Outcome) -> ErrorOf:
    error = full.error if isinstance(full, Score) else 0.0
    return lambda _, score: float(np.hypot(error, score.error))


def greedy_ladder(
    space: SearchSpace,
    cost_of: Callable[[Sequence[ExecutionPath]], Floats],
    sensitivity: Sensitivity,
    rungs: int,
) -> list[ExecutionPath]:
    """Paths that make one change after the other, those that lose least for what they save first.

    Effects are taken as if they added up: wrong where decisions interact, but a good guess of where
    a search should begin.

    Args:
        space: the paths.
        cost_of: the costs (n,) of paths.
        sensitivity: of that space.
        rungs: at most so many paths, evenly spread over the costs between full and the last.

    Returns:
        Distinct paths, from the dearest to the cheapest, without the full one.
    """
    choice: dict[str, Value] = dict(space.full)
    ladder: list[ExecutionPath] = []
    for effect in sensitivity.ranked():
        decision = space[effect.decision]
        current = choice[effect.decision]
        if decision.index(effect.value) < decision.index(current):
            choice[effect.decision] = effect.value
            path = space.canonical({n: v for n, v in choice.items() if n in space.positions})
            if path not in ladder:
                ladder.append(path)
    if len(ladder) <= rungs:
        return ladder
    if rungs < 1:
        raise InvalidValueError(f"a ladder must have at least one rung, but got {rungs}")
    costs = cost_of(ladder)
    wanted = np.linspace(float(costs.max()), float(costs.min()), rungs + 1)[1:]
    nearest = {int(np.argmin(np.abs(costs - level))): None for level in wanted}
    return [ladder[index] for index in sorted(nearest)]
