"""What fails in a search, fails alone."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath
from paretopath.search import SearchSettings, evaluated, search
from paretopath.tasks.task import Score
from tests.pipeline.analytic import FormulaEvaluator, FormulaPricer
from tests.pipeline.search.analytic_search import SPACE, Faulty, run


@pytest.mark.parametrize("sampler", ["model", "nsga2", "random"])
def test_an_accuracy_that_is_not_finite_fails_that_trial_only(tmp_path: Path, sampler: str) -> None:
    evaluator = Faulty(SPACE)
    trials = run(tmp_path, SearchSettings(trials=60, sampler=sampler), evaluator=evaluator)
    assert len(trials) == len({t.path for t in trials}) == 60  # none is proposed again
    failed = [t for t in trials if t.path["exit"] in (4, 5)]
    assert failed and len(failed) < 50
    for trial in trials:
        if trial in failed:
            assert trial.state == TrialState.FAIL and trial.score is None
            assert trial.failure and "an accuracy must be finite, but got" in trial.failure
        else:
            assert trial.state == TrialState.COMPLETE and trial.failure is None


@pytest.mark.parametrize("sampler", ["model", "nsga2", "random"])
def test_a_cost_that_is_not_finite_fails_that_trial_before_any_image(
    tmp_path: Path, sampler: str
) -> None:
    pricer = FormulaPricer(SPACE, broken=("exit", len(SPACE["exit"].values) - 1))
    evaluator = FormulaEvaluator(SPACE)
    study = search(
        SPACE, pricer, evaluator, SearchSettings(trials=60, sampler=sampler), run_dir=tmp_path
    )
    trials = evaluated(study, SPACE)
    assert len(trials) == len({t.path for t in trials}) == 60
    broken = [t for t in trials if t.path["exit"] == 6]
    assert SPACE.full in {t.path for t in broken}
    assert {t.state for t in broken} == {TrialState.FAIL}
    assert {t.failure for t in broken} == {"a cost must be finite, but energy_mj is nan"}
    assert not set(evaluator.paths) & {t.path for t in broken}


@pytest.mark.parametrize(("wrong", "gave"), [(-1, "7 for 8"), (1, "more than 8")])
def test_an_evaluator_owes_one_outcome_for_each_path(tmp_path: Path, wrong: int, gave: str) -> None:
    def careless(paths: Sequence[ExecutionPath]) -> list[Score]:
        return [Score(0.5, 0.0, 1)] * (len(paths) + wrong)

    with pytest.raises(InvalidValueError, match=f"one outcome a path, but gave {gave}"):
        run(tmp_path, SearchSettings(trials=60), evaluator=careless)
