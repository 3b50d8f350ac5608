"""The trials of a run's study, as fronts, reports and trackers take them."""

from collections.abc import Mapping
from pathlib import Path

from optuna.trial import TrialState

from paretopath.costs import COST_NAMES
from paretopath.front import Outcome, TrialRecord
from paretopath.paths import SearchSpace
from paretopath.search.trials import Evaluated, evaluated, load_study

_OUTCOMES: Mapping[TrialState, Outcome] = {
    TrialState.COMPLETE: "complete",
    TrialState.PRUNED: "stopped",
    TrialState.FAIL: "failed",
}


def finished_trials(directory: Path, space: SearchSpace) -> list[TrialRecord]:
    """The finished trials of a run directory's study of a space, in order."""
    found = evaluated(load_study(directory), space)
    return [trial_record(trial) for trial in found if trial.state.is_finished()]


def trial_record(trial: Evaluated) -> TrialRecord:
    """A finished trial of the study, as fronts, reports and trackers take it."""
    return TrialRecord(
        number=trial.number,
        state=_OUTCOMES[trial.state],
        path=trial.path,
        accuracy=trial.score.value if trial.score else None,
        accuracy_error=trial.score.error if trial.score else None,
        samples=trial.score.samples if trial.score else 0,
        costs={name: trial.costs[name] for name in COST_NAMES if name in trial.costs},
        failure=trial.failure,
    )
