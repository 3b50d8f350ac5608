"""Throughput of a search that 1, 2 and 4 workers share, and what each storage costs a trial.

    OMP_NUM_THREADS=1 python benchmarks/search_workers.py [--trials 200] [--storages journal …]

An evaluation is a sleep of 50 ms; accuracies and costs are formulas over 14 decisions. Every worker
is a process with the product's own loop. The clock runs from the moment at which all have imported
everything to the last recorded trial. Efficiency is what N workers finish in a second over N times
what one does. The sampler ``random`` shows what sharing costs; with ``model`` proposals take time
too, which one worker spends and the others don't wait for.

The cost of a storage is that of one process alone: a generation appended, claimed and finished,
milliseconds a trial.
"""

import argparse
import multiprocessing
import os
import secrets
import socket
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import optuna
from environment import save

from paretopath.paths import ExecutionPath, SearchSpace
from paretopath.search import SearchSettings, search
from paretopath.search.candidates import Problem
from paretopath.search.databases import open_database
from paretopath.search.storage import open_storage
from paretopath.search.trials import evaluated, load_study
from paretopath.search.workers import WorkerInfo, open_shared, work
from paretopath.tasks.task import Score
from tests.cluster.postgresql import PostgreSQL
from tests.pipeline.analytic import FormulaEvaluator, FormulaPricer, analytic_space

SLEEP_S = 0.05
PROCESSES = multiprocessing.get_context("fork")


class Sleeping(FormulaEvaluator):
    """Takes 50 ms a path."""

    def __call__(self, paths: Sequence[ExecutionPath]) -> Iterator[Score | Exception]:
        for path in paths:
            time.sleep(SLEEP_S)
            yield self.outcome(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--samplers", nargs="+", default=["random", "model"])
    names = ["journal", "sqlite", "postgresql", "grpc"]
    parser.add_argument("--storages", nargs="+", default=names, choices=names)
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = analytic_space()
    result: dict[str, Any] = {"trials": arguments.trials, "sleep_s": SLEEP_S}
    result["load_of_the_machine_before"] = os.getloadavg()[0]
    with Storages() as storages:
        costs = {name: overhead(space, storages.url(name)) for name in arguments.storages}
        for name, cost in costs.items():
            print(name, {key: round(value, 2) for key, value in cost.items()}, "ms", flush=True)
        rows = []
        for storage in arguments.storages:
            for sampler in arguments.samplers if storage == "journal" else ["random"]:
                rows += throughput(space, storages, storage, sampler, arguments)
    result["overhead_ms_a_trial"] = costs
    result["throughput"] = rows
    result["load_of_the_machine_after"] = os.getloadavg()[0]
    save("search_workers", result)


def throughput(
    space: SearchSpace,
    storages: "Storages",
    storage: str,
    sampler: str,
    arguments: argparse.Namespace,
) -> list[dict[str, Any]]:
    """Trials a second by numbers of workers."""
    settings = SearchSettings(trials=arguments.trials, sampler=sampler)
    rows: list[dict[str, Any]] = []
    for count in arguments.workers:
        with tempfile.TemporaryDirectory() as folder:
            seconds = shared(space, settings, Path(folder), storages.url(storage), count)
        rate = arguments.trials / seconds
        row = {"storage": storage, "sampler": sampler, "workers": count, "trials_a_second": rate}
        row["efficiency"] = rate / (count * rows[0]["trials_a_second"]) if rows else 1.0
        row["share_of_sleeping_only"] = rate * SLEEP_S / count
        rows.append(row)
        print(row, flush=True)
    return rows


def shared(
    space: SearchSpace, settings: SearchSettings, folder: Path, url: str | None, count: int
) -> float:
    """Seconds of a shared search."""
    together = PROCESSES.Barrier(count + 1)
    opening = PROCESSES.Process(target=begin, args=(space, settings, folder, url))
    opening.start()
    opening.join()
    workers = [
        PROCESSES.Process(target=run_worker, args=(space, settings, folder, number, together))
        for number in range(count)
    ]
    for worker in workers:
        worker.start()
    together.wait()
    start = time.time()
    for worker in workers:
        worker.join()
    assert all(worker.exitcode == 0 for worker in workers)
    trials = evaluated(load_study(folder), space)
    assert len({trial.path for trial in trials if trial.score}) == settings.trials == len(trials)
    study = load_study(folder)
    return max(t.datetime_complete.timestamp() for t in study.trials if t.datetime_complete) - start


def begin(space: SearchSpace, settings: SearchSettings, folder: Path, url: str | None) -> None:
    problem = Problem(space, FormulaPricer(space), settings.cost)
    open_shared(problem, settings, open_storage(folder, url))


def run_worker(
    space: SearchSpace, settings: SearchSettings, folder: Path, number: int, together: Barrier
) -> None:
    storage = open_storage(folder)
    together.wait()
    worker = WorkerInfo.here(f"worker-{number}")
    work(space, FormulaPricer(space), Sleeping(space), settings, storage, worker)


def overhead(space: SearchSpace, url: str | None, count: int = 64) -> dict[str, float]:
    """Milliseconds a trial of each step of a record, and of a whole search alone."""
    settings = SearchSettings(trials=count, sampler="random", generation=count)
    with tempfile.TemporaryDirectory() as name:
        record = open_shared(
            Problem(space, FormulaPricer(space), settings.cost), settings, open_storage(name, url)
        )
        rows = space.encode(list({space.sample(rng) for rng in _generators(4 * count)})[:count])
        marks = [time.perf_counter()]
        record.append(rows)
        marks.append(time.perf_counter())
        record.claim(range(count))
        marks.append(time.perf_counter())
        record.finish({number: Score(0.5, 0.01, 1000) for number in range(count)})
        marks.append(time.perf_counter())
    steps = [1e3 * (b - a) / count for a, b in pairwise(marks)]
    with tempfile.TemporaryDirectory() as name:
        start = time.perf_counter()
        evaluator = FormulaEvaluator(space)
        search(space, FormulaPricer(space), evaluator, settings, run_dir=name, storage=url)
        whole = 1e3 * (time.perf_counter() - start) / count
    names = ("append", "claim", "finish")
    return {**dict(zip(names, steps, strict=True)), "search_alone": whole}


def _generators(count: int) -> Iterator[Any]:
    import numpy as np

    yield from (np.random.default_rng(seed) for seed in range(count))


class Storages:
    """Empty storages of every kind, until the context ends."""

    def __enter__(self) -> "Storages":
        self._stack = ExitStack()
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self._server: PostgreSQL | None = None
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def url(self, kind: str) -> str | None:
        """Of a new storage."""
        name = f"n{secrets.token_hex(4)}"
        if kind == "journal":
            return None
        if kind == "sqlite":
            return f"sqlite:///{self._folder}/{name}.db"
        if self._server is None:
            self._server = self._stack.enter_context(PostgreSQL())
        database = self._server.create_database(name)
        if kind == "postgresql":
            return database
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        context = multiprocessing.get_context("spawn")
        proxy = context.Process(target=serve, args=(database, port), daemon=True)
        proxy.start()
        while True:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    return f"grpc://127.0.0.1:{port}"
            time.sleep(0.1)


def serve(url: str, port: int) -> None:
    """A process that is a gRPC proxy."""
    optuna.storages.run_grpc_proxy_server(open_database(url), host="127.0.0.1", port=port)


if __name__ == "__main__":
    main()
