"""A search that several processes share."""

import sys
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState

from paretopath import jobs
from paretopath.errors import (
    InvalidValueError,
    MissingExtraError,
    RecipeError,
    RunDirectoryError,
    StorageError,
)
from paretopath.jobs.sharing import share_of_machine
from paretopath.recipe import load_recipe
from paretopath.run import Run, build_space
from paretopath.search import SearchProgress, SearchSettings
from paretopath.search.candidates import Problem
from paretopath.search.claims import PROPOSING, Claims
from paretopath.search.databases import open_database
from paretopath.search.proposer import History, ModelProposer
from paretopath.search.storage import open_storage
from paretopath.search.workers import WorkerInfo, watch, work
from tests.pipeline.analytic import FormulaPricer, Stopping, tiny_space
from tests.pipeline.search.shared_search import SPACE, Broken, Raising, SharedSearch, finish

STORAGES = ["journal", "sqlite"]


def url_of(storage: str, folder: Path) -> str | None:
    return None if storage == "journal" else f"sqlite:///{folder}/study.db"


@pytest.mark.parametrize("storage", STORAGES)
def test_three_workers_one_killed_in_mid_trial_end_with_exactly_the_trials_asked_for(
    tmp_path: Path, storage: str
) -> None:
    settings = SearchSettings(trials=45, seed=3)
    search = SharedSearch(tmp_path / "run", settings, url_of(storage, tmp_path))
    second, first, third = (search.start(*of) for of in (("b", 0.4), ("a", 0.1), ("c", 0.1)))
    lost = search.kill_in_trial(second, "b", after=2)
    search.bury("b")  # as the parent of a worker does; a lease is tried on the other databases
    finish(first, third)
    search.assert_complete(killed=["b"])
    ended = [worker for path, worker in search.events("end") if path == lost]
    assert ended and ended[-1] in ("a", "c")
    assert {"a", "c"} <= {worker for _, worker in search.events("end")}


def test_a_silent_worker_loses_its_trials_and_a_late_one_takes_them(tmp_path: Path) -> None:
    search = SharedSearch(tmp_path, SearchSettings(trials=9, sampler="random"))
    lost = search.kill_in_trial(search.start("a", 0.2), "a", after=2)
    finish(search.start("late", 0.0))
    search.assert_complete(killed=["a"])
    assert (lost, "late") in search.events("end")


def test_evaluations_that_raise_are_recorded_as_failed_with_their_reason(tmp_path: Path) -> None:
    search = SharedSearch(tmp_path, SearchSettings(trials=16, sampler="random"))
    finish(*(search.start(name, 0.01, Raising) for name in ("a", "b")))
    trials = search.trials()
    failed = [trial for trial in trials if trial.state == TrialState.FAIL]
    assert len(trials) == 16 and 3 < len(failed) < 16
    assert all(trial.failure == f"MemoryError: no memory for {trial.path.id}" for trial in failed)
    assert not any(Raising.fits(trial.path, search.space) for trial in failed)
    assert all(Raising.fits(trial.path, search.space) for trial in trials if trial.score)


def test_a_worker_that_can_evaluate_nothing_leaves_and_another_goes_on(tmp_path: Path) -> None:
    search = SharedSearch(tmp_path, SearchSettings(trials=16, sampler="random"))
    broken = search.start("broken", 0.0, Broken)
    broken.join(100)
    assert broken.exitcode == 1
    finish(search.start("sound", 0.0))
    states = [trial.state for trial in search.trials()]
    assert len(states) == 16 and states.count(TrialState.FAIL) == 2


def test_workers_end_when_the_space_has_no_more_paths(tmp_path: Path) -> None:
    space = tiny_space()
    search = SharedSearch(tmp_path, SearchSettings(trials=40, sampler="random"), space=space)
    finish(*(search.start(name, 0.0) for name in ("a", "b")))
    trials = search.trials()
    assert len({trial.path for trial in trials if trial.score}) == len(trials) == space.size


def test_a_shared_search_counts_what_racing_stopped(tmp_path: Path) -> None:
    settings = SearchSettings(trials=20, sampler="random")
    search = SharedSearch(tmp_path, settings)
    heard: list[SearchProgress] = []
    worker = WorkerInfo.here("a")
    work(SPACE, FormulaPricer(SPACE), Stopping(SPACE), settings, search.storage, worker)
    watch(search.record, 20, on_progress=heard.append, is_alive=lambda: False)
    stopped = [trial for trial in search.trials() if trial.state == TrialState.PRUNED]
    assert heard[-1].finished == 20
    assert heard[-1].stopped == len(stopped) > 3
    assert not heard[-1].failed


def test_a_shared_search_goes_on_with_more_trials_and_is_watched(tmp_path: Path) -> None:
    for trials in (9, 14):
        search = SharedSearch(tmp_path, SearchSettings(trials=trials, sampler="random"))
        finish(search.start(f"until-{trials}", 0.0))
        search.assert_complete()
    heard: list[SearchProgress] = []
    watched = SharedSearch(tmp_path, SearchSettings(trials=16, sampler="random"))
    worker = watched.start("last", 0.0)
    watch(watched.record, 16, on_progress=heard.append, is_alive=worker.is_alive)
    finish(worker)
    assert sum(len(progress.latest) for progress in heard) == 2
    assert (heard[-1].finished, heard[-1].failed, heard[-1].trials) == (16, 0, 16)


def test_workers_of_other_settings_are_refused(tmp_path: Path) -> None:
    SharedSearch(tmp_path, SearchSettings(trials=9, seed=1))
    with pytest.raises(RunDirectoryError, match="must keep its settings, but seed was 1"):
        SharedSearch(tmp_path, SearchSettings(trials=9, seed=2))


# Claims: two workers in one process, each with a storage of its own


def two(folder: Path) -> tuple[Claims, Claims]:
    SharedSearch(folder, SearchSettings(trials=9))
    found = [Claims(open_storage(folder), lease_seconds=60) for _ in range(2)]
    for claims, name in zip(found, ("a", "b"), strict=True):
        claims.join(WorkerInfo.here(name)).__enter__()
    return found[0], found[1]


def test_of_two_workers_that_claim_the_same_trial_one_gets_it(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    assert first.claim({3: None, 4: None}) == [3, 4]
    assert second.claim({4: None, 5: None}) == [5]
    first.refresh()
    assert first.is_mine(4) and not first.is_mine(5) and not second.is_free(3)


def test_a_dead_workers_trial_is_taken_over_once(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    first.claim({3: None})
    second.refresh()
    entry = second.holder(3)
    third = Claims(open_storage(tmp_path), lease_seconds=60)
    third.join(WorkerInfo.here("c")).__enter__()
    assert second.claim({3: entry}) == [3]
    assert third.claim({3: entry}) == []  # what it saw is over
    first.refresh()
    assert not first.is_mine(3)


def test_the_right_to_propose_is_one_workers_until_it_gives_it_back(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    assert first.claim({PROPOSING: None}) == [PROPOSING]
    assert second.claim({PROPOSING: None}) == []
    first.release(PROPOSING)
    assert second.claim({PROPOSING: None}) == [PROPOSING] and second.proposals == 1


def test_finished_trials_are_told_to_others(tmp_path: Path) -> None:
    first, second = two(tmp_path)
    first.claim({3: None})
    first.finish([3])
    second.refresh()
    assert second.done == {3}


# What a worker that was taken for dead leaves


def test_of_equal_trials_the_first_counts(tmp_path: Path) -> None:
    search = SharedSearch(tmp_path, SearchSettings(trials=9, sampler="random"))
    rows = SPACE.encode([SPACE.full, SPACE.smallest])
    search.record.append(rows)
    search.record.append(rows[1:])
    assert search.record.surplus == [2] and search.record.unfinished == [0, 1]
    finish(search.start("a", 0.0))
    finished = [trial for trial in search.trials() if trial.state.is_finished()]
    assert len(finished) == 9 == len({trial.path for trial in finished})
    assert search.trials()[2].state == TrialState.WAITING


def test_pending_paths_are_neither_proposed_again_nor_their_neighbours_crowded(
    tmp_path: Path,
) -> None:
    problem = Problem(SPACE, FormulaPricer(SPACE), "energy_mj")
    search = SharedSearch(tmp_path, SearchSettings(trials=32, sampler="random"))
    finish(search.start("a", 0.0))
    record = search.record
    record.refresh()

    def propose(pending: int) -> np.ndarray:
        waits = np.zeros(32 + pending, dtype=bool)
        waits[32:] = True
        gap = np.full(pending, np.nan)
        history = History(
            np.concatenate([record.matrix, first[:pending]]),
            np.concatenate([record.accuracy, gap]),
            np.concatenate([record.error, gap]),
            np.concatenate([record.cost, problem.cost_of(first[:pending])]),
            waits,
        )
        return ModelProposer(problem).propose(history, 4, np.random.default_rng(0))

    first = np.zeros((0, record.matrix.shape[1]), dtype=np.int16)
    first = propose(0)
    second = propose(4)
    keys = {row.tobytes() for row in first}
    assert len(first) == len(second) == 4
    assert not keys & {row.tobytes() for row in second}


# Machines and databases


def test_workers_share_cores_and_take_gpus_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(8)))
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    shares = [share_of_machine(i, 4, {"CUDA_VISIBLE_DEVICES": "3,5"}) for i in range(4)]
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares] == ["3", "5", "3", "5"]
    assert all(share["OMP_NUM_THREADS"] == "2" for share in shares)
    assert "OMP_NUM_THREADS" not in share_of_machine(0, 4, {"OMP_NUM_THREADS": "1"})


def test_a_database_that_is_none_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="did you mean 'postgresql'"):
        open_database("postgres://me@host/x")
    with pytest.raises(StorageError, match=r"can't be used: .*unable to open database file"):
        open_database(f"sqlite:///{tmp_path}/absent/study.db")


def test_a_driver_that_is_missing_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'paretopath\[postgresql\]'"):
        open_database("postgresql://me@host/x")


def test_a_recipe_holds_no_password(tiny_recipe: Path) -> None:
    overrides = {"search.storage": "postgresql://me:secret@host/x"}
    with pytest.raises(RecipeError, match=r"must not hold a password.*~/\.pgpass"):
        load_recipe(tiny_recipe).with_overrides(overrides)


@pytest.mark.slow
def test_a_run_is_searched_by_processes_and_leaves_front_and_report(tiny_recipe: Path) -> None:
    overrides = {"search.workers": 2, "search.trials": 30, "search.sampler": "random"}
    recipe = load_recipe(tiny_recipe).with_overrides(overrides)
    run = Run.start(tiny_recipe.parent / "run", recipe, device="cpu")
    jobs.prepare_weights(run)
    heard: list[SearchProgress] = []
    front = jobs.search_run(run, on_progress=heard.append)
    jobs.save_report(run)
    trials = run.trials(build_space(recipe))
    assert len(trials) == 30 == len({trial.path for trial in trials})
    assert [point.id for point in run.front().points] == [point.id for point in front.points]
    assert run.report_file.is_file() and heard[-1].finished == 30
    assert sum(len(progress.latest) for progress in heard) == 30
    assert jobs.work_on(run) == 0  # a late one finds nothing to do


def test_a_run_stays_with_its_storage(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/study.db"
    name = open_storage(tmp_path, url).study
    assert open_storage(tmp_path).study == name and name.startswith(tmp_path.name)
    with pytest.raises(RunDirectoryError, match=r"must keep its storage, but .*other\.db"):
        open_storage(tmp_path, f"sqlite:///{tmp_path}/other.db")
