"""Every sampler goes on from trials that racing stopped (as in Optuna's issue 5260 with TPE)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from optuna.trial import TrialState

from paretopath.paths import ExecutionPath
from paretopath.search import Evaluated, SearchSettings, evaluated, search
from paretopath.search.samplers import SAMPLERS
from paretopath.tasks.task import Score, Stopped
from tests.pipeline.analytic import FormulaEvaluator, FormulaPricer, analytic_space

SPACE = analytic_space()


class Stopping(FormulaEvaluator):
    """Stops four of five paths."""

    def __call__(self, paths: Sequence[ExecutionPath]) -> Iterator[Score | Stopped | Exception]:
        for path, outcome in zip(paths, super().__call__(paths), strict=True):
            spared = path == SPACE.full or int(path.id[:4], 16) % 5 == 0
            if spared or not isinstance(outcome, Score):
                yield outcome
            else:
                seen = Score(outcome.value, 0.02, outcome.samples // 8)
                yield Stopped(seen, beaten_by=SPACE.full.id)


def run(folder: Path, sampler: str, trials: int) -> list[Evaluated]:
    generation = 2 if sampler in ("tpe", "gp") else None
    settings = SearchSettings(trials=trials, sampler=sampler, generation=generation, seed=1)
    pricer, evaluator = FormulaPricer(SPACE), Stopping(SPACE)
    return evaluated(search(SPACE, pricer, evaluator, settings, run_dir=folder), SPACE)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_samplers_go_on_from_stopped_trials_also_when_resumed(tmp_path: Path, sampler: str) -> None:
    trials = {"tpe": 16, "gp": 11, "model": 34}.get(sampler, 60)
    whole = run(tmp_path / "whole", sampler, trials)
    stopped = [trial for trial in whole if trial.state == TrialState.PRUNED]
    assert len({trial.path for trial in whole}) == trials and len(stopped) > trials / 2
    run(tmp_path / "parts", sampler, trials - 3)
    resumed = run(tmp_path / "parts", sampler, trials)
    assert [trial.path for trial in resumed] == [trial.path for trial in whole]
