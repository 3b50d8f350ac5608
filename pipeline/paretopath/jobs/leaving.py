"""What a search for paths with policies found, as paths."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from optuna.trial import TrialState

from paretopath.costs import known_costs
from paretopath.elastic import ElasticModel
from paretopath.front import TrialRecord, pareto_front
from paretopath.paths import ExecutionPath
from paretopath.policies.shares import LeavingSpace
from paretopath.policies.telling import CostOf
from paretopath.run import Parts, Run
from paretopath.search.trials import Evaluated, ToldRows
from paretopath.tasks.task import Score


def left_early(
    space: LeavingSpace, trials: Sequence[Evaluated], cost_of: CostOf
) -> dict[ExecutionPath, int]:
    """The paths, without policies, of those that were found and that no other beats in expected
    cost and accuracy, with the number of a trial that tells of each.

    Args:
        space: that was searched.
        trials: of the search.
        cost_of: what it minimised.
    """
    found: dict[ExecutionPath, tuple[float, int]] = {}
    for trial in trials:
        if trial.score and trial.state == TrialState.COMPLETE:
            told = ToldRows.of(trial)
            also = zip(space.decode(told.matrix), told.accuracy, strict=True) if told else ()
            for path, accuracy in ((trial.path, trial.score.value), *also):
                found.setdefault(path, (float(accuracy), trial.number))
    stays = pareto_front([accuracy for accuracy, _ in found.values()], cost_of(space.encode(found)))
    left: dict[ExecutionPath, int] = {}
    for (path, (_, number)), stay in zip(found.items(), stays, strict=True):
        if stay:
            left.setdefault(space.without(path), number)
    return left


def without_policies(
    run: Run,
    parts: Parts,
    model: ElasticModel,
    trials: Sequence[TrialRecord],
    left: Mapping[ExecutionPath, int],
) -> list[TrialRecord]:
    """The trials that nobody leaves early, and these paths, measured as if nobody did.

    Args:
        run: whose.
        parts: of it.
        model: with the searched weights.
        trials: of the search.
        left: paths, with the number that they get.
    """
    space = parts.leaving
    assert space is not None
    plain: dict[ExecutionPath, TrialRecord] = {}
    for trial in trials:
        path = space.without(trial.path)
        if not any(space.shares_of(trial.path)):
            plain[path] = replace(trial, path=path)
    new = [path for path in left if path not in plain or plain[path].state != "complete"]
    costs = parts.table(new)
    scores = parts.images.evaluator(model, "validation", kept=run.own())(new)
    for i, (path, score) in enumerate(zip(new, scores, strict=True)):
        if isinstance(score, Score):
            plain[path] = TrialRecord(
                number=left[path],
                state="complete",
                path=path,
                accuracy=score.value,
                accuracy_error=score.error,
                samples=score.samples,
                costs=known_costs(costs.row(i)),
                failure=None,
            )
    return list(plain.values())
