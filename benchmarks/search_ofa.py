"""How near the search comes to the best-known front of ofa_resnet50, beside four other ways.

    OMP_NUM_THREADS=1 python benchmarks/search_ofa.py [--predictor FILE] [--seeds 3]

Accuracy is the published predictor's, cost is MACs; nothing is run on images. What counts is the
share of the best-known hypervolume after so many evaluations (of distinct paths for ours; the
others may repeat themselves), under two reference points: one that counts all of the front and one
that counts its accurate, cheap part. Seconds are wall time, cost tables filled anew by each run of
ours.

Methods: ``ours`` (sampler model, journal on disk), ``nsga2`` and ``tpe`` (Optuna's, defaults, in
memory), ``ofa`` (the evolutionary search that Once-For-All publishes, one run a limit of MACs), and
``greedy`` (step down where accuracy falls least per MAC). Results of methods that are not run are
kept from the file that is there.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import optuna
import torch
from environment import RESULTS, save
from ofa_official import MacsAlone

from paretopath.cost import CostTable
from paretopath.evaluation.predictor import AccuracyPredictor, PredictorEvaluator
from paretopath.front import hypervolume
from paretopath.paths import ABSENT, IndexMatrix
from paretopath.search import SearchProgress, SearchSettings, search
from paretopath.weights.known import fetch_checkpoint
from search_spaces import create
from search_spaces.ofa_resnet import OfaResNet50Space

Floats = npt.NDArray[np.float64]

# (accuracy, MMACs) of the reference point: MMACs x accuracy, the best that any search found here.
BEST_KNOWN = {(0.74, 5000.0): 372.5979, (0.78, 3000.0): 88.9731}
OFA_LIMITS_MMACS = (600, 800, 1000, 1250, 1500, 2000, 2500, 3000, 4000, 5000)


@dataclass
class Trace:
    """Evaluations in order: accuracies, MMACs and the wall time when each was known."""

    accuracy: list[float]
    mmacs: list[float]
    seconds: list[float]

    def shares(self, count: int) -> list[float]:
        """The shares of the best-known hypervolumes after so many evaluations."""
        accuracy, mmacs = self.accuracy[:count], self.mmacs[:count]
        return [hypervolume(accuracy, mmacs, point) / best for point, best in BEST_KNOWN.items()]


class Landscape:
    """The space with its predictor and its MACs.

    Args:
        file: the published predictor.
    """

    def __init__(self, file: Path) -> None:
        space = create("ofa_resnet50")
        assert isinstance(space, OfaResNet50Space)
        self.space = space
        self.predictor = AccuracyPredictor.load(file)
        self.table = CostTable(space, MacsAlone())
        self.choices = [[d.index(value) for value in d.distinct] for d in space.decisions]

    def mmacs(self, rows: IndexMatrix) -> Floats:
        """Millions of MACs of canonical rows."""
        return self.table.encoded(rows).macs / 1e6

    def accuracy(self, rows: IndexMatrix) -> Floats:
        """Predicted accuracies of canonical rows."""
        return self.predictor(self.space.encode_for_predictor(rows)).astype(np.float64)

    def genes(self, rng: np.random.Generator, count: int) -> IndexMatrix:
        """Random values of all decisions, those that don't matter included."""
        columns = [rng.choice(choices, size=count) for choices in self.choices]
        return np.stack(columns, axis=1).astype(np.int16)


def ours(landscape: Landscape, trials: int, seed: int) -> Trace:
    """The product: :func:`paretopath.search.search` with a cold cost table and its journal."""
    trace = Trace([], [], [])
    start = time.perf_counter()
    table = CostTable(landscape.space, MacsAlone())
    evaluator = PredictorEvaluator(landscape.space, landscape.predictor)

    def follow(progress: SearchProgress) -> None:
        for trial in progress.latest:
            assert trial.score
            trace.accuracy.append(trial.score.value)
            trace.mmacs.append(trial.costs["macs"] / 1e6)
            trace.seconds.append(time.perf_counter() - start)
        print(f"ours, seed {seed}: {progress.finished} in {trace.seconds[-1]:.1f} s", flush=True)

    settings = SearchSettings(trials=trials, seed=seed, sampler="model", cost="macs")
    with tempfile.TemporaryDirectory() as folder:
        search(landscape.space, table, evaluator, settings, run_dir=folder, on_progress=follow)
    return trace


def with_optuna(landscape: Landscape, sampler: optuna.samplers.BaseSampler, trials: int) -> Trace:
    """Optuna alone: a categorical parameter for each decision, a study in memory."""
    trace = Trace([], [], [])
    decisions = landscape.space.decisions
    distributions: dict[str, optuna.distributions.BaseDistribution] = {
        d.name: optuna.distributions.CategoricalDistribution(d.distinct) for d in decisions
    }
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    start = time.perf_counter()
    for number in range(trials):
        trial = study.ask(distributions)
        row = np.array([[d.index(trial.params[d.name]) for d in decisions]], dtype=np.int16)
        row = landscape.space.canonical_encoded(row)
        accuracy, mmacs = float(landscape.accuracy(row)[0]), float(landscape.mmacs(row)[0])
        study.tell(trial, [accuracy, mmacs])
        trace.accuracy.append(accuracy)
        trace.mmacs.append(mmacs)
        trace.seconds.append(time.perf_counter() - start)
        if (number + 1) % 500 == 0:
            name = type(sampler).__name__
            print(f"{name}: {number + 1} in {trace.seconds[-1]:.1f} s", flush=True)
    return trace


class OfaEvolution:
    """Once-For-All's search for the most accurate network under one limit (arXiv 1908.09791, 3.4).

    With the published settings (ofa/nas/search_algorithm/evolution.py): 100 in the population, a
    quarter of them parents, half of the children mutated and half crossed; a mutation changes the
    image size with probability 0.5, every other gene with 0.1; 500 generations; children over
    the limit are made again.

    Args:
        landscape: what is searched.
        limit_mmacs: the most MACs allowed, in millions.
        rng: the only source of randomness.
    """

    POPULATION, PARENTS, MUTATED, GENERATIONS = 100, 25, 50, 500
    PROBABILITY, IMAGE_SIZE_PROBABILITY = 0.1, 0.5

    def __init__(self, landscape: Landscape, limit_mmacs: float, rng: np.random.Generator) -> None:
        self._landscape = landscape
        self._limit_mmacs = limit_mmacs
        self._rng = rng
        self.accuracies: list[Floats] = []
        self.mmacs: list[Floats] = []

    def run(self) -> None:
        """Searches; everything evaluated is in ``accuracies`` and ``mmacs``."""
        genes, accuracy = self._evaluated(self._fitting(self._sampled, self.POPULATION))
        for _ in range(self.GENERATIONS):
            best = np.argsort(-accuracy, kind="stable")[: self.PARENTS]
            parents, accuracy = genes[best], accuracy[best]
            mutated = self._fitting(partial(self._mutated, parents), self.MUTATED)
            others = self.POPULATION - self.MUTATED
            crossed = self._fitting(partial(self._crossed, parents), others)
            children, scores = self._evaluated(np.concatenate([mutated, crossed]))
            genes = np.concatenate([parents, children])
            accuracy = np.concatenate([accuracy, scores])

    def _evaluated(self, genes: IndexMatrix) -> tuple[IndexMatrix, Floats]:
        rows = self._landscape.space.canonical_encoded(genes)
        self.accuracies.append(self._landscape.accuracy(rows))
        self.mmacs.append(self._landscape.mmacs(rows))
        return genes, self.accuracies[-1]

    def _fitting(self, make: Callable[[int], IndexMatrix], count: int) -> IndexMatrix:
        """``count`` of what ``make`` gives, those over the limit made again."""
        found: list[IndexMatrix] = []
        missing = count
        while missing:
            genes = make(max(4 * missing, 64))
            rows = self._landscape.space.canonical_encoded(genes)
            kept = genes[self._landscape.mmacs(rows) <= self._limit_mmacs][:missing]
            found.append(kept)
            missing -= len(kept)
        return np.concatenate(found)

    def _sampled(self, count: int) -> IndexMatrix:
        return self._landscape.genes(self._rng, 50 * count)  # few are small enough

    def _mutated(self, parents: IndexMatrix, count: int) -> IndexMatrix:
        chosen = parents[self._rng.integers(len(parents), size=count)]
        probability = np.full(chosen.shape[1], self.PROBABILITY)
        probability[self._landscape.space.positions["image_size"]] = self.IMAGE_SIZE_PROBABILITY
        change = self._rng.random(chosen.shape) < probability
        return np.where(change, self._landscape.genes(self._rng, count), chosen)

    def _crossed(self, parents: IndexMatrix, count: int) -> IndexMatrix:
        first, second = self._rng.integers(len(parents), size=(2, count))
        swap = self._rng.random((count, parents.shape[1])) < 0.5
        return np.where(swap, parents[second], parents[first])


def with_ofa(landscape: Landscape, seed: int) -> Trace:
    """The official search, once for each limit; all that it evaluated counts for its front."""
    rng = np.random.default_rng(seed)
    trace = Trace([], [], [])
    start = time.perf_counter()
    for limit in OFA_LIMITS_MMACS:
        evolution = OfaEvolution(landscape, limit, rng)
        evolution.run()
        accuracy, mmacs = np.concatenate(evolution.accuracies), np.concatenate(evolution.mmacs)
        trace.accuracy += accuracy.tolist()
        trace.mmacs += mmacs.tolist()
        trace.seconds += [time.perf_counter() - start] * len(accuracy)
        best = accuracy.max()
        print(f"ofa, {limit} MMACs: {best:.5f}, {trace.seconds[-1]:.1f} s", flush=True)
    return trace


def greedy(landscape: Landscape) -> Trace:
    """From the full path, always the single step down that costs least accuracy per MAC."""
    space = landscape.space
    start = time.perf_counter()
    row = space.encode([space.full])
    trace = Trace(landscape.accuracy(row).tolist(), landscape.mmacs(row).tolist(), [0.0])
    accuracy, mmacs = trace.accuracy[0], trace.mmacs[0]
    while len(steps := _steps_down(landscape, row)):
        accuracies, costs = landscape.accuracy(steps), landscape.mmacs(steps)
        trace.accuracy += accuracies.tolist()
        trace.mmacs += costs.tolist()
        trace.seconds += [time.perf_counter() - start] * len(steps)
        loss_per_mac = (accuracy - accuracies) / (mmacs - costs)
        best = int(np.argmin(loss_per_mac))
        row, accuracy, mmacs = steps[best : best + 1], accuracies[best], costs[best]
    return trace


def _steps_down(landscape: Landscape, row: IndexMatrix) -> IndexMatrix:
    """The rows in which one decision that matters is one value cheaper."""
    steps = []
    for column, choices in enumerate(landscape.choices):
        if row[0, column] != ABSENT and row[0, column] != choices[0]:
            step = row[0].copy()
            step[column] = choices[choices.index(int(row[0, column])) - 1]
            steps.append(step)
    matrix = np.array(steps, dtype=np.int16).reshape(len(steps), row.shape[1])
    return landscape.space.canonical_encoded(matrix)


def summary(traces: Sequence[Trace], budgets: Sequence[int]) -> dict[str, Any]:
    """Shares and seconds at each budget that the traces reach, and where they end."""
    shortest = min(len(trace.accuracy) for trace in traces)
    marks = sorted({*(budget for budget in budgets if budget < shortest), shortest})
    result: dict[str, Any] = {"seeds": len(traces)}
    for mark in marks:
        each = [trace.shares(mark) for trace in traces]
        result[str(mark)] = {
            "share": [round(float(v), 5) for v in np.mean(each, axis=0)],
            "share_of_each_seed": [[round(v, 5) for v in pair] for pair in each],
            "seconds": round(float(np.mean([trace.seconds[mark - 1] for trace in traces])), 1),
        }
    return result


def store(name: str, traces: Sequence[Trace], budgets: Sequence[int]) -> None:
    """Adds a method's results to the file."""
    file = RESULTS / "search_ofa.json"
    methods = json.loads(file.read_text("utf-8"))["methods"] if file.exists() else {}
    methods[name] = summary(traces, budgets)
    best = [
        {"accuracy": accuracy, "mmacs": mmacs, "best_known": value}
        for (accuracy, mmacs), value in BEST_KNOWN.items()
    ]
    save("search_ofa", {"unit": "MMACs x accuracy", "references": best, "methods": methods})
    print(name, json.dumps(methods[name]), flush=True)


def main() -> None:
    """Runs the chosen methods; each is written as soon as one seed of it is done."""
    names = ("ours", "greedy", "ofa", "nsga2", "tpe")
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--predictor", type=Path, help="the published file; else downloaded")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--budgets", type=int, nargs="+", default=[500, 1000, 2000, 10000])
    parser.add_argument("--methods", nargs="+", choices=names, default=names)
    parser.add_argument("--tpe-trials", type=int, default=2000)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    landscape = Landscape(arguments.predictor or fetch_checkpoint("ofa_resnet50_acc_predictor"))
    budgets, most = arguments.budgets, max(arguments.budgets)
    samplers = optuna.samplers
    for name in arguments.methods:
        traces: list[Trace] = []
        for seed in range(1 if name == "greedy" else arguments.seeds):
            if name == "ours":
                traces.append(ours(landscape, most, seed))
            elif name == "greedy":
                traces.append(greedy(landscape))
            elif name == "ofa":
                traces.append(with_ofa(landscape, seed))
            elif name == "nsga2":
                sampler = samplers.NSGAIISampler(seed=seed)
                traces.append(with_optuna(landscape, sampler, most))
            else:
                chosen = samplers.TPESampler(seed=seed)
                traces.append(with_optuna(landscape, chosen, arguments.tpe_trials))
            # the others reach all of the front only when they end
            anytime = name in ("ours", "nsga2", "tpe")
            store(name, traces, budgets if anytime else ())


if __name__ == "__main__":
    main()
