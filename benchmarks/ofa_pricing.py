"""How many paths of ofa_resnet50 are priced and predicted in a second, on one core.

    python benchmarks/ofa_pricing.py [--predictor FILE]

Times are processor time of one thread, median of several rounds, once the table is warm; the time
that it takes to fill is given apart.
"""

import argparse
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from environment import median, save

from paretopath.cost import CostTable
from paretopath.cost import create as cost_model
from paretopath.evaluation.predictor import AccuracyPredictor
from paretopath.weights.known import fetch_checkpoint
from search_spaces.ofa_resnet import OfaResNet50Space

PATHS = 500_000
WARMING = 20_000
ROUNDS = 7


def seconds(run: Callable[[], object]) -> float:
    """Processor time of one call."""
    start = time.process_time()
    run()
    return time.process_time() - start


def main() -> None:
    """Measures, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--predictor", type=Path, help="the published file; else downloaded")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    space = OfaResNet50Space()
    predictor = AccuracyPredictor.load(
        arguments.predictor or fetch_checkpoint("ofa_resnet50_acc_predictor")
    )
    table = CostTable(space, cost_model("accelerator", preset="magnet-16nm"))
    rng = np.random.default_rng(0)
    filling = seconds(lambda: table.encoded(space.sample_encoded(rng, WARMING)))
    matrix = space.sample_encoded(rng, PATHS)
    table.encoded(matrix)
    pricing = median([seconds(lambda: table.encoded(matrix)) for _ in range(ROUNDS)])
    fewer = matrix[: PATHS // 10]
    predicting = median(
        [seconds(lambda: predictor(space.encode_for_predictor(fewer))) for _ in range(ROUNDS)]
    )
    result = {
        "seconds_to_fill_the_table": round(filling, 2),
        "paths_priced_per_second": round(PATHS / pricing),
        "paths_predicted_per_second": round(len(fewer) / predicting),
        "paths_priced_and_predicted_per_second": round(
            1 / (pricing / PATHS + predicting / len(fewer))
        ),
    }
    save("ofa_pricing", result)
    print(result)


if __name__ == "__main__":
    main()
