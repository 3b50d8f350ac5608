"""Measured latency of whole Once-For-All paths against what cost models predict.

    python benchmarks/measure_paths.py [--predictor FILE] [--paths 20] [--rounds 6] [--threads 1]

Paths are spread along the front of a search for predicted accuracy and accelerator energy. The
device model measures units, with nothing kept from before; whole paths are then measured as static
models, in rounds. Weights are random: they do not change how long a path takes.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from environment import save
from ofa_energy import PRESET, Lab

from paretopath.cost import CostTable, create
from paretopath.evaluation.predictor import AccuracyPredictor
from paretopath.front import pareto_front
from paretopath.paths import ExecutionPath
from paretopath.showing.measure import compare, measure_paths, predict, write_html
from paretopath.weights.known import fetch_checkpoint
from search_spaces.ofa_resnet import OfaResNet50Space


def front_paths(
    space: OfaResNet50Space, predictor: AccuracyPredictor, *, trials: int, count: int
) -> list[ExecutionPath]:
    """Paths of a search's front, evenly spaced among its points, cheapest first."""
    lab = Lab(predictor, trials)
    table = CostTable(space, create("accelerator", preset=PRESET))
    rows, _ = lab.search(space, table, cost="energy_mj", seed=0)
    energy = table.encoded(rows).energy_mj
    kept = np.flatnonzero(pareto_front(lab.accuracy(space, rows), energy))
    kept = kept[np.argsort(energy[kept])]
    chosen = np.unique(np.linspace(0, len(kept) - 1, count).round().astype(int))
    return space.decode(rows[kept[chosen]])


def run(space: OfaResNet50Space, paths: Sequence[ExecutionPath], **options: Any) -> dict[str, Any]:
    """Prices the paths, measures them and sets one against the other."""
    rounds, threads = options["rounds"], options["threads"]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as cache:
        device = create("device", threads=threads, energy=False, cache_dir=cache)
        models = {"device": device, "accelerator": create("accelerator", preset=PRESET)}
        start = time.perf_counter()
        predictions = predict(space, paths, models)
        seconds = time.perf_counter() - start
        forms = len(device.cache.load())
    measured = measure_paths(space.build(), paths, threads=threads, rounds=rounds, energy=False)
    comparison = compare(measured, predictions, hardware=device.hardware)
    if options["html"]:
        write_html(options["html"], comparison)
    found = comparison.to_json()
    return {
        "measured_on": found.pop("hardware"),
        "forms": forms,
        "pricing_seconds": round(seconds, 1),
        "load": [round(load, 1), round(os.getloadavg()[0], 1)],
        **found,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", type=Path, help="the published file; else downloaded")
    parser.add_argument("--trials", type=int, default=500, help="of the search for the front")
    parser.add_argument("--paths", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--html", type=Path, help="also draw it into this file")
    arguments = parser.parse_args()
    file = arguments.predictor or fetch_checkpoint("ofa_resnet50_acc_predictor")
    space = OfaResNet50Space()
    paths = front_paths(
        space, AccuracyPredictor.load(file), trials=arguments.trials, count=arguments.paths
    )
    result = run(
        space, paths, rounds=arguments.rounds, threads=arguments.threads, html=arguments.html
    )
    save("measure_paths", result)
    for agreement in result["agreements"]:
        print(agreement)
