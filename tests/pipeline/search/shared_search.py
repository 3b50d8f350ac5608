"""Workers of a shared search as real processes: what they evaluate goes to a log."""

import os
import signal
import time
from collections import Counter
from collections.abc import Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path

from optuna.trial import TrialState

from paretopath.jobs.worker import new_name
from paretopath.paths import ExecutionPath, SearchSpace
from paretopath.search import SearchSettings
from paretopath.search.candidates import Problem
from paretopath.search.storage import open_storage
from paretopath.search.trials import Evaluated, evaluated, load_study
from paretopath.search.workers import WorkerInfo, bury, open_shared, work
from paretopath.tasks.task import Score
from tests.pipeline.analytic import FormulaEvaluator, FormulaPricer, accuracy, analytic_space
from tests.pipeline.processes import PROCESSES

SPACE = analytic_space()
LEASE_SECONDS = 6.0  # long enough for a busy machine


class Logged(FormulaEvaluator):
    """Writes down who begins and ends which path, and takes its time."""

    def __init__(self, space: SearchSpace, log: Path, worker: str, seconds: float) -> None:
        super().__init__(space)
        self.log = log
        self.worker = worker
        self.seconds = seconds

    def write(self, event: str, path: ExecutionPath) -> None:
        with self.log.open("a") as log:
            log.write(f"{event} {path.id} {self.worker}\n")

    def outcome(self, path: ExecutionPath) -> Score | Exception:
        self.write("begin", path)
        time.sleep(self.seconds)
        score = super().outcome(path)
        self.write("end", path)
        return score


class Raising(Logged):
    """Has no memory for most paths."""

    @staticmethod
    def fits(path: ExecutionPath, space: SearchSpace) -> bool:
        return path == space.smallest or path.id[0] in "0123"

    def outcome(self, path: ExecutionPath) -> Score | Exception:
        if not self.fits(path, self.space):
            raise MemoryError(f"no memory for {path.id}")
        return super().outcome(path)


class Broken(Raising):
    """Has no memory for any path."""

    @staticmethod
    def fits(path: ExecutionPath, space: SearchSpace) -> bool:
        return False


def run_worker(
    folder: Path,
    name: str,
    settings: SearchSettings,
    seconds: float,
    kind: type[Logged] = Logged,
    space: SearchSpace = SPACE,
) -> None:
    """A worker's process."""
    evaluator = kind(space, folder / "log", name, seconds)
    worker = WorkerInfo.here(name)
    storage = open_storage(folder)
    pricer = FormulaPricer(space)
    work(space, pricer, evaluator, settings, storage, worker, lease_seconds=LEASE_SECONDS)


class SharedSearch:
    """A shared search and its workers.

    Args:
        folder: the run directory; made.
        settings: of the search.
        url: of the storage; None: the journal.
    """

    def __init__(
        self,
        folder: Path,
        settings: SearchSettings,
        url: str | None = None,
        *,
        space: SearchSpace = SPACE,
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.settings = settings
        self.space = space
        self.storage = open_storage(folder, url)
        problem = Problem(space, FormulaPricer(space), settings.cost, settings.budgets)
        self.record = open_shared(problem, settings, self.storage)
        self.log = folder / "log"
        self.log.touch()

    def start(self, name: str, seconds: float = 0.02, kind: type[Logged] = Logged) -> BaseProcess:
        """Starts a worker."""
        arguments = (self.folder, name, self.settings, seconds, kind, self.space)
        process = PROCESSES.Process(target=run_worker, args=arguments)
        process.start()
        return process

    def events(self, kind: str) -> list[tuple[str, str]]:
        """(path, worker) of each event of a kind, in order."""
        lines = [line.split() for line in self.log.read_text().splitlines()]
        return [(path, worker) for event, path, worker in lines if event == kind]

    def kill_in_trial(self, process: BaseProcess, name: str, after: int) -> str:
        """Kills a worker while it evaluates a path, once it has begun so many; the path.

        Its evaluations should take long, so that it dies in one and not just after it.
        """
        wait_until(lambda: sum(w == name for _, w in self.events("begin")) >= after)
        assert process.pid is not None
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return next(path for path, worker in reversed(self.events("begin")) if worker == name)

    def bury(self, name: str) -> None:
        """Says that a worker's process has ended."""
        bury(self.storage, name)

    def trials(self) -> list[Evaluated]:
        """All trials of the study, read anew."""
        return evaluated(load_study(self.folder), self.space)

    def assert_complete(self, killed: Sequence[str] = ()) -> None:
        """As many distinct finished trials as asked for, none run twice but what a worker lost."""
        trials = self.trials()
        assert len(trials) == self.settings.trials
        assert all(trial.state == TrialState.COMPLETE for trial in trials)
        assert len({trial.path for trial in trials}) == len(trials)
        for trial in trials:
            assert trial.score and trial.score.value == accuracy(self.space, trial.path)
        begun = Counter(path for path, _ in self.events("begin"))
        assert {path.id for path in (t.path for t in trials)} == set(begun)
        again = {path for path, times in begun.items() if times > 1}
        lost = {path for path, worker in self.events("begin") if worker in killed}
        assert again <= lost, self.log.read_text()
        assert all(times <= 1 + len(killed) for times in begun.values())


def wait_until(condition, seconds: float = 60.0) -> None:
    """Waits for something that another process does."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.005)


def finish(*processes: BaseProcess, seconds: float = 100.0) -> None:
    """Waits for workers, which must end well."""
    for process in processes:
        process.join(seconds)
        assert process.exitcode == 0


def run_job(folder: str, settings: SearchSettings, seconds: float) -> None:
    """A worker as a job of a cluster, which has a new name each time that it starts."""
    run_worker(Path(folder), new_name(), settings, seconds)
