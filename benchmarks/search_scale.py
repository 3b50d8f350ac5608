"""Many workers that share one PostgreSQL; evaluations sleep, and some workers die.

    OMP_NUM_THREADS=1 python benchmarks/search_scale.py [--trials 3400] [--workers 64] [--scale 3]

Each worker is a process that runs the product's own loop over 25 decisions, with accuracies and
costs from formulas. What is simulated is the time that an evaluation takes: it sleeps for a
log-normal time of median 60 s and sigma 0.5, divided by the scale; in 2 % of evaluations its
process kills itself (SIGKILL) at a random moment of that sleep, and a new worker takes its place
a minute later. The clock of everything else (database, leases, proposals) is not scaled, which
makes it harder by that factor. 3400 trials of 64 workers are an hour.

Checked: as many finished trials as asked for, all of different paths; none ended twice, which a log
of all evaluations shows; none begun twice but those whose worker died. Compared: the hypervolume of
the front with that of searches alone with as many evaluations.
"""

import argparse
import multiprocessing
import os
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from environment import save

from paretopath.front import hypervolume
from paretopath.paths import ExecutionPath
from paretopath.search import SearchSettings, search
from paretopath.search.candidates import Problem
from paretopath.search.storage import open_storage
from paretopath.search.trials import Evaluated, evaluated, load_study
from paretopath.search.workers import WorkerInfo, open_shared, work
from paretopath.tasks.task import Score
from tests.cluster.postgresql import PostgreSQL
from tests.pipeline.analytic import FormulaEvaluator, FormulaPricer, analytic_space

MEDIAN_S, SIGMA = 60.0, 0.5
DYING = 0.02
REPLACED_AFTER_S = 60.0
SPACE = analytic_space(blocks=12)
PRICER = FormulaPricer(SPACE)
REFERENCE = (0.1, 60.0)  # accuracy and energy, of the hypervolume
SEEDS = (0, 1, 2)  # of the searches alone
LEASE_S = 30.0  # real seconds

PROCESSES = multiprocessing.get_context("fork")  # everything is imported once, before


class Simulated:
    """The formula's accuracies, at a simulated time, by a process that may die.

    Args:
        worker: its number.
        scale: simulated seconds a real one.
        log: gets a line when an evaluation begins, ends, or kills its process.
    """

    def __init__(self, worker: int, scale: float, log: Path) -> None:
        self.rng = np.random.default_rng([7, worker])
        self.worker = worker
        self.scale = scale
        self.log = log

    def __call__(self, paths: Sequence[ExecutionPath]) -> Iterator[Score | Exception]:
        for path, score in zip(paths, FormulaEvaluator(SPACE)(paths), strict=True):
            self.write("begin", path)
            seconds = MEDIAN_S * float(np.exp(SIGMA * self.rng.normal())) / self.scale
            if self.rng.random() < DYING:
                time.sleep(seconds * float(self.rng.random()))
                self.write("die", path)
                os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(seconds)
            self.write("end", path)
            yield score

    def write(self, event: str, path: ExecutionPath) -> None:
        with self.log.open("a") as log:
            log.write(f"{time.time():.3f} {event} {path.id} {self.worker}\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=3400)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--scale", type=float, default=3.0)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    settings = SearchSettings(trials=arguments.trials)
    load = os.getloadavg()[0]
    result = shared(settings, arguments.workers, arguments.scale)
    result["load_of_the_machine"] = {"before": load, "after": os.getloadavg()[0]}
    print(result, flush=True)
    others = {str(seed): alone(arguments.trials, seed) for seed in SEEDS}
    print(others, flush=True)
    save("search_scale", {"shared": result, "alone_hypervolume_by_seed": others})


def volume(trials: Sequence[Evaluated]) -> float:
    """The hypervolume of finished trials."""
    scored = [(t.score.value, t.costs["energy_mj"]) for t in trials if t.score]
    return hypervolume([value for value, _ in scored], [cost for _, cost in scored], REFERENCE)


def alone(trials: int, seed: int) -> float:
    """The hypervolume of a search in one process, without sleeping."""
    settings = SearchSettings(trials=trials, seed=seed)
    with tempfile.TemporaryDirectory() as folder:
        study = search(SPACE, PRICER, FormulaEvaluator(SPACE), settings, run_dir=folder)
        return volume(evaluated(study, SPACE))


def shared(settings: SearchSettings, count: int, scale: float) -> dict[str, Any]:
    """The simulated workers."""
    with PostgreSQL() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # in a process of its own: those that are forked later must not share its connection
        opening = PROCESSES.Process(target=begin, args=(settings, folder, server.url))
        opening.start()
        opening.join()
        start = time.time()
        deaths = supervise(settings, folder, count, scale)
        seconds = time.time() - start
        trials = evaluated(load_study(folder), SPACE)
        events = [line.split() for line in (folder / "log").read_text().splitlines()]
    begun, ended = (Counter(e[2] for e in events if e[1] == kind) for kind in ("begin", "end"))
    died = {path for _, kind, path, _ in events if kind == "die"}
    busy = sum(float(e[0]) * {"begin": -1, "end": 1, "die": 1}[e[1]] for e in events)
    return {
        "workers": count,
        "scale": scale,
        "simulated_minutes": seconds * scale / 60,
        "asked_for": settings.trials,
        "trials": len(trials),
        "finished": sum(trial.score is not None for trial in trials),
        "distinct_paths": len({trial.path for trial in trials}),
        "workers_killed": deaths,
        "evaluations_begun": sum(begun.values()),
        "evaluations_ended": sum(ended.values()),
        "paths_ended_twice": sum(times > 1 for times in ended.values()),
        "paths_begun_twice_though_no_worker_died": sum(
            times > 1 and path not in died for path, times in begun.items()
        ),
        "share_of_time_evaluating": busy / (count * seconds),
        "hypervolume": volume(trials),
    }


def begin(settings: SearchSettings, folder: Path, url: str) -> None:
    open_shared(Problem(SPACE, PRICER, settings.cost), settings, open_storage(folder, url))


def supervise(settings: SearchSettings, folder: Path, count: int, scale: float) -> int:
    """Runs workers, new ones in place of those that die, until one finds the search done."""
    (folder / "log").touch()

    def start(number: int) -> BaseProcess:
        arguments = (settings, folder, number, scale)
        process = PROCESSES.Process(target=run_worker, args=arguments)
        process.start()
        return process

    running = [start(number) for number in range(count)]
    due: list[float] = []  # when the next ones take the places of dead ones
    deaths, number, reported = 0, count, time.time()
    while running or due:
        for process in [p for p in running if p.exitcode is not None]:
            running.remove(process)
            if process.exitcode == -signal.SIGKILL:
                deaths += 1
                due.append(time.time() + REPLACED_AFTER_S / scale)
            elif process.exitcode == 0:
                due, count = [], 0  # the search is done: nobody is replaced any more
            else:
                raise RuntimeError(f"a worker ended with status {process.exitcode}")
        while count and due and due[0] <= time.time():
            due.pop(0)
            running.append(start(number))
            number += 1
        if not count:
            due = []
        if time.time() - reported > 30:
            reported = time.time()
            ended = sum(" end " in line for line in (folder / "log").open())
            print(f"{ended} ended, {deaths} killed, {len(running)} at work", flush=True)
        time.sleep(0.2)
    return deaths


def run_worker(settings: SearchSettings, folder: Path, number: int, scale: float) -> None:
    """A worker's process."""
    evaluator = Simulated(number, scale, folder / "log")
    worker = WorkerInfo.here(f"worker-{number}")
    storage = open_storage(folder)
    work(SPACE, PRICER, evaluator, settings, storage, worker, lease_seconds=LEASE_S)


if __name__ == "__main__":
    main()
