"""Searches that are interrupted, killed, cut short, or begun twice."""

import random
import time
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from optuna.trial import TrialState

from paretopath.errors import RunDirectoryError
from paretopath.paths import ExecutionPath, SearchSpace
from paretopath.search import SearchSettings, evaluated, load_study
from paretopath.search.storage import JOURNAL
from paretopath.tasks.task import Score
from tests.pipeline.analytic import FormulaEvaluator
from tests.pipeline.processes import PROCESSES
from tests.pipeline.search.analytic_search import SPACE, Trials, essence, run


@pytest.fixture(scope="module")
def reference(tmp_path_factory: pytest.TempPathFactory) -> Trials:
    """An undisturbed search of 60 trials."""
    return essence(run(tmp_path_factory.mktemp("reference"), SearchSettings(trials=60, seed=5)))


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
