"""What a search for paths with policies found, as paths."""

from collections.abc import Sequence
from dataclasses import replace

from paretopath.costs import CostName, known_costs
from paretopath.elastic import ElasticModel
from paretopath.front import TrialRecord, pareto_front
from paretopath.paths import ExecutionPath
from paretopath.policies.shares import LeavingSpace
from paretopath.run import Parts, Run
from paretopath.tasks.task import Score


def left_early(
    space: LeavingSpace, trials: Sequence[TrialRecord], cost: CostName
) -> list[ExecutionPath]:
    """The paths, without policies, of the trials that no other beats in expected cost and
    accuracy.
    """
    done = [(t, t.accuracy) for t in trials if t.state == "complete" and t.accuracy is not None]
    stays = pareto_front([accuracy for _, accuracy in done], [t.costs[cost] for t, _ in done])
    front = [trial.path for (trial, _), stay in zip(done, stays, strict=True) if stay]
    return list(dict.fromkeys(map(space.without, front)))


def without_policies(
    run: Run,
    parts: Parts,
    model: ElasticModel,
    trials: Sequence[TrialRecord],
    left: Sequence[ExecutionPath],
) -> list[TrialRecord]:
    """The trials that nobody leaves early, and these paths, measured as if nobody did."""
    space = parts.leaving
    assert space is not None
    plain: dict[ExecutionPath, TrialRecord] = {}
    of_path: dict[ExecutionPath, TrialRecord] = {}
    for trial in trials:
        path = space.without(trial.path)
        of_path.setdefault(path, trial)
        if not any(space.shares_of(trial.path)):
            plain[path] = replace(trial, path=path)
    new = [path for path in left if path not in plain or plain[path].state != "complete"]
    costs = parts.table(new)
    scores = parts.images.evaluator(model, "validation", kept=run.own())(new)
    for i, (path, score) in enumerate(zip(new, scores, strict=True)):
        if isinstance(score, Score):
            plain[path] = TrialRecord(
                number=of_path[path].number,
                state="complete",
                path=path,
                accuracy=score.value,
                accuracy_error=score.error,
                samples=score.samples,
                costs=known_costs(costs.row(i)),
                failure=None,
            )
    return list(plain.values())
