"""Measured latency of whole paths against what cost models predict.

    python benchmarks/measure_paths.py [--predictor FILE] [--paths 20] [--rounds 6] [--threads 1]
    python benchmarks/measure_paths.py --run RUN [--batch-size 1] [--paths 20] …

Paths are spread along the front of RUN, or else of a search in Once-For-All's space for predicted
accuracy and accelerator energy. The device model measures units, with nothing kept from before;
whole paths are then measured as static models, in rounds. Weights are random: they do not change
how long a path takes. Of a run, each path's time and multiply-accumulates are printed as shares of
the full one's.
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
from paretopath.elastic import ElasticSpace
from paretopath.evaluation.predictor import AccuracyPredictor
from paretopath.front import pareto_front
from paretopath.paths import ExecutionPath
from paretopath.run import Run, build_space
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
    return space.decode(rows[kept[spread(len(kept), count)]])


def spread(points: int, count: int) -> list[int]:
    """So many of the points of a front, evenly, both ends included."""
    return sorted(set(np.linspace(0, points - 1, count).round().astype(int).tolist()))


def paths_of_run(run: Run, space: ElasticSpace, count: int) -> list[ExecutionPath]:
    """Paths of a run's front, the full one included, evenly spaced among its points."""
    front = run.front()
    points = [front.points[i] for i in spread(len(front.points), count)]
    paths = [*(space.canonical(point.path) for point in points), space.full]
    return list(dict.fromkeys(paths))


def run(space: ElasticSpace, paths: Sequence[ExecutionPath], **options: Any) -> dict[str, Any]:
    """Prices the paths, measures them and sets one against the other."""
    rounds, threads, batch_size = options["rounds"], options["threads"], options["batch_size"]
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory() as cache:
        device = create(
            "device", threads=threads, batch_size=batch_size, energy=False, cache_dir=cache
        )
        models = {"device": device, "accelerator": create("accelerator", preset=PRESET)}
        start = time.perf_counter()
        predictions = predict(space, paths, models)
        seconds = time.perf_counter() - start
        forms = len(device.cache.load())
    measured = measure_paths(
        space.build(), paths, batch_size=batch_size, threads=threads, rounds=rounds, energy=False
    )
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
    parser.add_argument("--run", type=Path, help="whose front's paths are measured")
    parser.add_argument("--batch-size", type=int, default=1)
    parser.add_argument("--trials", type=int, default=500, help="of the search for the front")
    parser.add_argument("--paths", type=int, default=20)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--html", type=Path, help="also draw it into this file")
    arguments = parser.parse_args()
    name = "measure_paths"
    space: ElasticSpace
    if arguments.run:
        opened = Run.open(arguments.run, device="cpu")
        space = build_space(opened.recipe)
        paths = paths_of_run(opened, space, arguments.paths)
        name += f"_{opened.recipe.name}_{arguments.batch_size}"
    else:
        file = arguments.predictor or fetch_checkpoint("ofa_resnet50_acc_predictor")
        space = OfaResNet50Space()
        paths = front_paths(
            space, AccuracyPredictor.load(file), trials=arguments.trials, count=arguments.paths
        )
    result = run(
        space,
        paths,
        rounds=arguments.rounds,
        threads=arguments.threads,
        batch_size=arguments.batch_size,
        html=arguments.html,
    )
    save(name, result)
    for agreement in result["agreements"]:
        print(agreement)
    if arguments.run:
        full = next(row for row in result["paths"] if row["path_id"] == space.full.id)
        for row in result["paths"]:
            macs, faster = (
                row["predicted"]["MACs"] / full["predicted"]["MACs"],
                full["latency_ms"] / row["latency_ms"],
            )
            print(f"{row['path_id']}: {macs:.1%} of the MACs, {faster:.2f}x faster")
