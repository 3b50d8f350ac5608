"""The search: one contract for every sampler, its settings, and what it records."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from paretopath.errors import InvalidValueError, RunDirectoryError
from paretopath.paths import ExecutionPath
from paretopath.search import SearchProgress, SearchSettings, evaluated, load_study, search
from paretopath.search.samplers import SAMPLERS
from paretopath.search.storage import JOURNAL
from paretopath.tasks.task import Score
from tests.pipeline.analytic import (
    IMAGES,
    FormulaEvaluator,
    FormulaPricer,
    accuracy,
    analytic_space,
    tiny_space,
)
from tests.pipeline.search.analytic_search import SPACE, Faulty, essence, run

# One contract for every sampler


def few(sampler: str, **options: Any) -> SearchSettings:
    """Trials enough for a sampler to leave its random start; Optuna's GP needs seconds for each."""
    enough = {"gp": 11, "tpe": 14, "model": 34}.get(sampler, 60)
    if sampler in ("gp", "tpe"):
        options["generation"] = 2
    return SearchSettings(**{"trials": enough, "sampler": sampler} | options)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_trials_are_distinct_finished_paths_with_their_costs(tmp_path: Path, sampler: str) -> None:
    evaluator = FormulaEvaluator(SPACE)
    trials = run(tmp_path, few(sampler), evaluator=evaluator)
    assert [t.number for t in trials] == list(range(few(sampler).trials))
    assert len({t.path for t in trials}) == len(trials)
    assert evaluator.paths == [t.path for t in trials]
    assert [t.path for t in trials[:2]] == [SPACE.full, SPACE.smallest]
    energy = FormulaPricer(SPACE).encoded(SPACE.encode(evaluator.paths))["energy_mj"]
    for trial, cost in zip(trials, energy, strict=True):
        assert trial.state == TrialState.COMPLETE and trial.failure is None and trial.fits
        assert trial.path == SPACE.canonical(trial.path)
        assert trial.score == Score(accuracy(SPACE, trial.path), 0.0, IMAGES)
        assert set(trial.costs) == {"energy_mj", "latency_ms"}  # the others are not known
        assert trial.costs["energy_mj"] == cost
        assert trial.attrs["path"] == trial.path.id


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_the_same_seed_gives_the_same_trials_also_when_resumed(
    tmp_path: Path, sampler: str
) -> None:
    whole = essence(run(tmp_path / "a", few(sampler, seed=3)))
    for stop in (5, len(whole) - 3, len(whole)):  # three calls, each goes on
        resumed = essence(run(tmp_path / "b", few(sampler, seed=3, trials=stop)))
        assert resumed == whole[:stop]
    other = essence(run(tmp_path / "c", few(sampler, seed=4, trials=10)))
    assert other != whole[:10]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_evaluated_path_is_over_a_budget_but_the_full_one(tmp_path: Path, sampler: str) -> None:
    budgets = {"energy_mj": 12.0, "latency_ms": 13.0}
    full, *others = run(tmp_path, few(sampler, budgets=budgets))
    assert full.path == SPACE.full and not full.fits
    assert len(others) == few(sampler).trials - 1
    for trial in others:
        assert trial.fits
        assert all(trial.costs[name] <= bound for name, bound in budgets.items())
    study = load_study(tmp_path)
    assert study.trials[0].constraints["energy_mj"] == full.costs["energy_mj"] - 12.0
    assert all(v <= 0 for t in study.trials[1:] for v in t.constraints.values())
    assert full.number not in [t.number for t in study.best_trials]  # Optuna knows the constraint


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_search_ends_when_its_space_has_no_more_paths(tmp_path: Path, sampler: str) -> None:
    space = tiny_space()
    trials = run(tmp_path, few(sampler, trials=40), space=space)
    assert len({t.path for t in trials}) == len(trials) == space.size
    again = run(tmp_path, few(sampler, trials=40), space=space)
    assert essence(again) == essence(trials)


# Settings


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"trials": 0}, "trials must be at least 1, but got 0"),
        ({"trials": 5, "generation": 0}, "generation must be at least 1, but got 0"),
        ({"trials": 5, "seed": -1}, "a seed must not be negative, but got -1"),
        ({"trials": 5, "sampler": "nsga"}, "no sampler 'nsga'; legal: .* did you mean 'nsga2'"),
    ],
)
def test_settings_outside_their_range_are_refused(settings: dict[str, int], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        SearchSettings(**settings)  # type: ignore[arg-type]


def test_a_budget_that_nothing_fits_is_an_error_before_anything_is_recorded(
    tmp_path: Path,
) -> None:
    settings = SearchSettings(trials=5, budgets={"energy_mj": 0.5})
    with pytest.raises(InvalidValueError, match="no path of the space fits a budget of 500 µJ"):
        run(tmp_path, settings)
    assert essence(run(tmp_path, SearchSettings(trials=5)))


def test_a_search_is_resumed_with_its_own_settings_only(tmp_path: Path) -> None:
    run(tmp_path, SearchSettings(trials=5, budgets={"energy_mj": 12.0}))
    for change, message in (
        ({"seed": 1}, "seed was 0 and is now 1"),
        ({"sampler": "random"}, "sampler was 'model' and is now 'random'"),
        ({"budgets": {"energy_mj": 9.0}}, r"budgets was {'energy_mj': 12.0} and is now"),
    ):
        settings = SearchSettings(**{"trials": 6, "budgets": {"energy_mj": 12.0}} | change)
        with pytest.raises(RunDirectoryError, match=message):
            run(tmp_path, settings)
    with pytest.raises(RunDirectoryError, match="decisions was"):
        other = SearchSettings(trials=6, budgets={"energy_mj": 12.0})
        run(tmp_path, other, space=analytic_space(5))


def test_a_fixed_generation_is_evaluated_together(tmp_path: Path) -> None:
    sizes: list[int] = []

    def counting(paths: Sequence[ExecutionPath]) -> Iterator[Score | Exception]:
        sizes.append(len(paths))
        return FormulaEvaluator(SPACE)(paths)

    run(tmp_path, SearchSettings(trials=40, generation=15), evaluator=counting)
    assert sizes == [8, 15, 15, 2]


# The record


def test_progress_tells_every_trial_once_and_the_best_within_the_budgets(tmp_path: Path) -> None:
    reports: list[SearchProgress] = []
    settings = SearchSettings(trials=40, budgets={"energy_mj": 12.0})
    study = search(
        SPACE,
        FormulaPricer(SPACE),
        Faulty(SPACE),
        settings,
        run_dir=tmp_path,
        on_progress=reports.append,
    )
    trials = evaluated(study, SPACE)
    assert [t for report in reports for t in report.latest] == trials
    last = reports[-1]
    failed = [t for t in trials if t.state == TrialState.FAIL]
    assert (last.finished, last.trials, last.failed) == (40, 40, len(failed))
    fitting = [t for t in trials if t.score and t.fits]
    assert last.best is not None and last.best.score is not None
    assert last.best.score.value == max(t.score.value for t in fitting if t.score)


def test_optuna_loads_the_study_without_us(tmp_path: Path) -> None:
    trials = run(tmp_path, SearchSettings(trials=20))
    storage = JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    study = optuna.load_study(study_name=None, storage=storage)
    assert [d.name for d in study.directions] == ["MAXIMIZE", "MINIMIZE"]
    assert study.metric_names == ["accuracy", "energy_mj"]
    for theirs, ours in zip(study.trials, trials, strict=True):
        assert theirs.params == dict(ours.path)
        assert ours.score is not None
        assert theirs.values == [ours.score.value, ours.costs["energy_mj"]]
        assert theirs.datetime_start <= theirs.datetime_complete
    front = {t.number for t in study.best_trials}
    better = [
        [o.values[0] >= t.values[0] and o.values[1] < t.values[1] for o in study.trials]
        for t in study.trials
    ]
    assert front.isdisjoint(i for i, row in enumerate(better) if any(row))


def test_a_database_holds_the_same_search(tmp_path: Path) -> None:
    settings = SearchSettings(trials=12, seed=5)
    url = f"sqlite:///{tmp_path}/study.db"
    for _ in range(2):  # the second call finds it finished
        study = search(
            SPACE,
            FormulaPricer(SPACE),
            FormulaEvaluator(SPACE),
            settings,
            run_dir=tmp_path,
            storage=url,
        )
    trials = evaluated(load_study(tmp_path, storage=url), SPACE)
    assert essence(trials) == essence(run(tmp_path / "journal", settings))
    assert len(study.trials) == 12


def test_a_directory_without_a_search_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(RunDirectoryError, match=r"there is no search in .*study\.journal"):
        load_study(tmp_path)


def test_the_record_costs_a_write_a_generation_not_a_parameter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flushed: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(file) or fsync(file))
    run(tmp_path, SearchSettings(trials=108, sampler="random", generation=50))
    generations = 3  # 8, 50, 50: each is added, claimed and finished
    assert len(flushed) <= 3 * generations + 3


def test_arrays_of_the_space_are_not_shared_between_searches(tmp_path: Path) -> None:
    rows = SPACE.sample_encoded(np.random.default_rng(0), 5)
    before = rows.copy()
    run(tmp_path, SearchSettings(trials=30))
    assert (SPACE.sample_encoded(np.random.default_rng(0), 5) == before).all()
