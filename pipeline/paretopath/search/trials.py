"""The trials of a search, read: each is a path with its score and its costs."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
from optuna.trial import FrozenTrial, TrialState

from paretopath.costs import COST_NAMES
from paretopath.errors import RunDirectoryError
from paretopath.paths import ExecutionPath, IndexMatrix, SearchSpace
from paretopath.search.storage import JOURNAL, has_study, open_storage
from paretopath.tasks.task import Score


@dataclass(frozen=True)
class Evaluated:
    """One trial of a search.

    Attributes:
        number: of the trial, from 0.
        path: what was evaluated.
        score: its accuracy; None where it has not finished or failed; of a stopped trial what is
            expected of it on all images.
        costs: the exact costs that are known, by name.
        fits: whether it meets every budget.
        state: Optuna's state: COMPLETE, PRUNED (stopped by racing), FAIL, WAITING or RUNNING.
        failure: why it failed; None where it didn't.
        attrs: all user attributes of the trial.
    """

    number: int
    path: ExecutionPath
    score: Score | None
    costs: Mapping[str, float]
    fits: bool
    state: TrialState
    failure: str | None
    attrs: Mapping[str, Any]


@dataclass(frozen=True)
class ToldRows:
    """What a trial told of other paths.

    Attributes:
        matrix: (n, n_decisions) canonical value indices.
        accuracy: (n,), in [0, 1].
        error: (n,) standard errors of the accuracies.
    """

    matrix: IndexMatrix
    accuracy: npt.NDArray[np.float64]
    error: npt.NDArray[np.float64]

    @classmethod
    def of(cls, trial: Evaluated) -> "ToldRows | None":
        """Of a trial; None if it told of none."""
        also = trial.attrs.get("also")
        if not also:
            return None
        rows = np.array(also["rows"], dtype=np.int16)
        return cls(rows, np.array(also["accuracy"]), np.array(also["error"]))

    @staticmethod
    def dump(also: Mapping[ExecutionPath, Score], space: SearchSpace) -> dict[str, Any]:
        """The same as JSON values, an attribute of the trial."""
        return {
            "rows": space.encode(also).tolist(),
            "accuracy": [score.value for score in also.values()],
            "error": [score.error for score in also.values()],
        }


def load_study(run_dir: str | os.PathLike[str], *, storage: str | None = None) -> optuna.Study:
    """The study of a run directory: accuracy up, cost down, budgets as constraints.

    Args:
        run_dir: of a search.
        storage: the database that the search used in place of the directory's journal, as a URL;
            the run directory knows it too.

    Raises:
        RunDirectoryError: no search was started there.
        StorageError: the database can't be reached.
    """
    if not has_study(run_dir):
        raise RunDirectoryError(f"there is no search in {run_dir}: {JOURNAL} is missing")
    opened = open_storage(run_dir, storage)
    return optuna.load_study(study_name=opened.study, storage=opened.optuna)


def evaluated(study: optuna.Study, space: SearchSpace) -> list[Evaluated]:
    """All trials of a search, in order, as paths with their scores and costs.

    Args:
        study: from :func:`load_study`.
        space: the one that was searched.

    Raises:
        InvalidPathError: the study is of another space.
    """
    return [read_trial(trial, space) for trial in study.get_trials(deepcopy=False)]


def read_trial(trial: FrozenTrial, space: SearchSpace) -> Evaluated:
    """One trial as a path with its score and costs."""
    attrs = trial.user_attrs
    score = None
    if trial.state == TrialState.COMPLETE:
        score = Score(trial.values[0], attrs["accuracy_error"], attrs["samples"])
    elif trial.state == TrialState.PRUNED:
        score = Score(attrs["accuracy"], attrs["accuracy_error"], attrs["samples"])
    return Evaluated(
        number=trial.number,
        path=space.canonical(trial.params),
        score=score,
        costs={name: attrs[name] for name in COST_NAMES if name in attrs},
        fits=all(value <= 0 for value in trial.constraints.values()),
        state=trial.state,
        failure=attrs.get("failure"),
        attrs=attrs,
    )
