"""An hour of 64 workers that share one PostgreSQL; evaluations sleep, and some workers die.

    OMP_NUM_THREADS=1 python benchmarks/search_scale.py --predictor FILE [--trials 3400] [--scale 3]

Each worker is a process that runs the product's own loop on ofa_resnet50 (accuracy: the published
predictor's; cost: MACs). What is simulated is the time that an evaluation takes: it sleeps for a
log-normal time of median 60 s and sigma 0.5, divided by the scale; in 2 % of evaluations its
process kills itself (SIGKILL) at a random moment of that sleep, and a new worker takes its place
a minute later. The clock of everything else (database, leases, proposals) is not scaled, which
makes it harder by that factor than an hour would be.

Checked: as many finished trials as asked for, all of different paths; none recorded twice, which a
log of all evaluations shows; none evaluated twice but those whose worker died. Compared: the
hypervolume of the front with that of a search alone with as many evaluations.
"""

import argparse
import json
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
from environment import RESULTS, save
from ofa_official import MacsAlone
from search_ofa import BEST_KNOWN, Landscape

from pipeline.candidates import Problem
from pipeline.cost import CostTable
from pipeline.front import hypervolume
from pipeline.paths import ExecutionPath
from pipeline.predictor import PredictorEvaluator
from pipeline.record import evaluated, load_study
from pipeline.search import SearchSettings, search
from pipeline.storage import open_storage
from pipeline.tasks.task import Score
from pipeline.workers import WorkerInfo, open_shared, work
from tests.cluster.postgresql import PostgreSQL

MEDIAN_S, SIGMA = 60.0, 0.5
DYING = 0.02
REPLACED_AFTER_S = 60.0
WARM = 2000  # random paths
LEASE_S = 30.0  # real seconds

PROCESSES = multiprocessing.get_context("fork")  # the landscape is built once, before


class Simulated:
    """The predictor's accuracies, at a simulated time, by a process that may die.

    Args:
        landscape: the space and its predictor.
        worker: its number.
        scale: simulated seconds a real one.
        log: gets a line when an evaluation begins, ends, or kills its process.
    """

    def __init__(self, landscape: Landscape, worker: int, scale: float, log: Path) -> None:
        self.predict = PredictorEvaluator(landscape.space, landscape.predictor)
        self.rng = np.random.default_rng([7, worker])
        self.worker = worker
        self.scale = scale
        self.log = log

    def __call__(self, paths: Sequence[ExecutionPath]) -> Iterator[Score]:
        for path, score in zip(paths, self.predict(paths), strict=True):
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
    parser.add_argument("--predictor", type=Path, required=True)
    parser.add_argument("--trials", type=int, default=3400)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--scale", type=float, default=3.0)
    parser.add_argument("--only", choices=("alone", "shared"))
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    landscape = Landscape(arguments.predictor)
    rng = np.random.default_rng(0)  # the units' forms are priced once, for all processes
    landscape.table([landscape.space.sample(rng) for _ in range(WARM)])
    settings = SearchSettings(trials=arguments.trials, seed=0, cost="macs")
    file = RESULTS / "search_scale.json"
    result = json.loads(file.read_text()) if file.is_file() else {}
    result.pop("hardware", None)
    if arguments.only != "shared":
        result["alone"] = alone(landscape, settings)
        print(result["alone"], flush=True)
    if arguments.only != "alone":
        begin = os.getloadavg()[0]
        result["shared"] = shared(landscape, settings, arguments.workers, arguments.scale)
        result["shared"]["load_of_the_machine"] = {"before": begin, "after": os.getloadavg()[0]}
        print(result["shared"], flush=True)
    save("search_scale", result)


def shares(accuracy: Sequence[float], mmacs: Sequence[float]) -> list[float]:
    """Of the best-known hypervolumes."""
    return [hypervolume(accuracy, mmacs, point) / best for point, best in BEST_KNOWN.items()]


def alone(landscape: Landscape, settings: SearchSettings) -> dict[str, Any]:
    """A search in one process, without sleeping."""
    start = time.perf_counter()
    table = CostTable(landscape.space, MacsAlone())
    evaluator = PredictorEvaluator(landscape.space, landscape.predictor)
    with tempfile.TemporaryDirectory() as folder:
        study = search(landscape.space, table, evaluator, settings, run_dir=folder)
        trials = evaluated(study, landscape.space)
    seconds = time.perf_counter() - start
    accuracy = [trial.score.value for trial in trials if trial.score]
    return {
        "trials": len(trials),
        "hypervolume_shares": shares(accuracy, [t.costs["macs"] / 1e6 for t in trials]),
        "seconds": seconds,
    }


def shared(
    landscape: Landscape, settings: SearchSettings, count: int, scale: float
) -> dict[str, Any]:
    """The simulated hour."""
    with PostgreSQL() as server, tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # in a process of its own: those that are forked later must not share its connection
        opening = PROCESSES.Process(target=begin, args=(landscape, settings, folder, server.url))
        opening.start()
        opening.join()
        start = time.time()
        deaths = supervise(landscape, settings, folder, count, scale)
        seconds = time.time() - start
        trials = evaluated(load_study(folder), landscape.space)
        events = [line.split() for line in (folder / "log").read_text().splitlines()]
    complete = [trial for trial in trials if trial.score]
    begun, ended = (Counter(e[2] for e in events if e[1] == kind) for kind in ("begin", "end"))
    died = {path for _, kind, path, _ in events if kind == "die"}
    accuracy = [trial.score.value for trial in complete if trial.score]
    busy = sum(float(e[0]) * {"begin": -1, "end": 1, "die": 1}[e[1]] for e in events)
    return {
        "workers": count,
        "scale": scale,
        "simulated_minutes": seconds * scale / 60,
        "asked_for": settings.trials,
        "trials": len(trials),
        "finished": len(complete),
        "distinct_paths": len({trial.path for trial in trials}),
        "lost": sum(trial.score is None for trial in trials),
        "workers_killed": deaths,
        "evaluations_begun": sum(begun.values()),
        "evaluations_ended": sum(ended.values()),
        "paths_ended_twice": sum(times > 1 for times in ended.values()),
        "paths_begun_twice_though_no_worker_died": sum(
            times > 1 and path not in died for path, times in begun.items()
        ),
        "share_of_time_evaluating": busy / (count * seconds),
        "hypervolume_shares": shares(accuracy, [t.costs["macs"] / 1e6 for t in complete]),
    }


def begin(landscape: Landscape, settings: SearchSettings, folder: Path, url: str) -> None:
    problem = Problem(landscape.space, landscape.table, settings.cost, settings.budgets)
    open_shared(problem, settings, open_storage(folder, url))


def supervise(
    landscape: Landscape, settings: SearchSettings, folder: Path, count: int, scale: float
) -> int:
    """Runs workers, new ones in place of those that die, until one finds the search done."""
    (folder / "log").touch()

    def start(number: int) -> BaseProcess:
        arguments = (landscape, settings, folder, number, scale)
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


def run_worker(
    landscape: Landscape, settings: SearchSettings, folder: Path, number: int, scale: float
) -> None:
    """A worker's process."""
    evaluator = Simulated(landscape, number, scale, folder / "log")
    worker = WorkerInfo.here(f"worker-{number}")
    space, table, storage = landscape.space, landscape.table, open_storage(folder)
    work(space, table, evaluator, settings, storage, worker, lease_seconds=LEASE_S)


if __name__ == "__main__":
    main()
