"""The search: what it records, what it never runs twice, and how it survives."""

import math
import os
import random
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from paretopath.errors import InvalidValueError, RunDirectoryError
from paretopath.paths import ExecutionPath, SearchSpace
from paretopath.search import (
    Evaluated,
    SearchProgress,
    SearchSettings,
    evaluated,
    load_study,
    search,
)
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
from tests.pipeline.processes import PROCESSES

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


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """An undisturbed search of 60 trials."""
    return essence(run(tmp_path_factory.mktemp("reference"), SearchSettings(trials=60, seed=5)))


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


# Interruptions


class Interrupted(FormulaEvaluator):
    """Raises in the middle of a generation."""

    def __init__(self, space: SearchSpace, after: int, error: BaseException) -> None:
        super().__init__(space)
        self.after = after
        self.interruption = error

    def __call__(self, paths: Sequence[ExecutionPath]) -> Iterator[Score | Exception]:
        for path, outcome in zip(paths, super().__call__(paths), strict=False):
            if len(self.paths) > self.after:
                raise self.interruption
            assert path == self.paths[-1]
            yield outcome


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of memory")])
def test_an_interrupted_search_keeps_what_was_measured_and_goes_on(
    tmp_path: Path, reference: Trials, error: BaseException
) -> None:
    settings = SearchSettings(trials=60, seed=5)
    first = Interrupted(SPACE, 27, error)
    with pytest.raises(type(error)):
        run(tmp_path, settings, evaluator=first)
    kept = [t for t in evaluated(load_study(tmp_path), SPACE) if t.state == TrialState.COMPLETE]
    assert [t.path for t in kept] == first.paths[:27]
    second = FormulaEvaluator(SPACE)
    assert essence(run(tmp_path, settings, evaluator=second)) == reference
    assert not set(second.paths) & {t.path for t in kept}


class Slow(FormulaEvaluator):
    """Writes down which paths it evaluates, and takes its time."""

    def __init__(self, space: SearchSpace, log: Path, seconds: float) -> None:
        super().__init__(space)
        self.log = log
        self.seconds = seconds

    def outcome(self, path: ExecutionPath) -> Score | Exception:
        with self.log.open("a") as log:
            log.write(path.id + "\n")
        time.sleep(self.seconds)
        return super().outcome(path)


def search_slowly(folder: Path, log: Path, seconds: float) -> None:
    settings = SearchSettings(trials=60, seed=5)
    run(folder, settings, evaluator=Slow(SPACE, log, seconds))


def started(folder: Path, log: Path, seconds: float) -> BaseProcess:
    process = PROCESSES.Process(target=search_slowly, args=(folder, log, seconds))
    process.start()
    return process


def test_a_search_killed_three_times_ends_as_if_it_never_was(
    tmp_path: Path, reference: Trials
) -> None:
    log = tmp_path / "evaluated.txt"
    log.touch()
    chance = random.Random(0)
    finished: set[str] = set()
    for _ in range(3):
        begun = len(log.read_text().split())
        process = started(tmp_path / "run", log, 0.01)
        while len(log.read_text().split()) < begun + 12 and process.is_alive():
            time.sleep(0.001)
        time.sleep(chance.random() * 0.2)
        process.kill()
        process.join()
        trials = evaluated(load_study(tmp_path / "run"), SPACE)
        done = {t.path.id for t in trials if t.state.is_finished()}
        assert finished <= done
        finished = done
    before = len(log.read_text().split())
    trials = run(tmp_path / "run", SearchSettings(trials=60, seed=5))
    assert before >= 36 and len(trials) == 60
    assert all(t.state == TrialState.COMPLETE for t in trials)
    assert essence(trials) == reference


def test_a_journal_cut_anywhere_is_resumed_to_the_same_search(
    tmp_path: Path, reference: Trials
) -> None:
    settings = SearchSettings(trials=60, seed=5)
    run(tmp_path / "whole", settings)
    whole = (tmp_path / "whole" / JOURNAL).read_bytes()
    chance = random.Random(1)
    for cut in [0, 1, *(chance.randrange(len(whole)) for _ in range(6)), len(whole) - 1]:
        folder = tmp_path / str(cut)
        folder.mkdir()
        (folder / JOURNAL).write_bytes(whole[:cut])
        assert essence(run(folder, settings)) == reference, cut


def test_two_searches_of_one_run_directory_exclude_each_other(tmp_path: Path) -> None:
    log = tmp_path / "evaluated.txt"
    log.touch()
    process = started(tmp_path / "run", log, 60.0)
    try:
        while not log.read_text() and process.is_alive():
            time.sleep(0.01)
        with pytest.raises(RunDirectoryError, match=f"process {process.pid}"):
            run(tmp_path / "run", SearchSettings(trials=60, seed=5))
    finally:
        process.kill()
        process.join()


# What fails, fails alone


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
