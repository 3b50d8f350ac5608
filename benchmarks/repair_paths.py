"""What repair in sequence does to random paths of a run, and what it costs an evaluation.

    python benchmarks/repair_paths.py RUN [--paths 50] [--images 256]

Each path on the run's test images: as compensation alone leaves it (with batch-norm statistics of
its own where the run measures them), and repaired on calibration images. Their difference comes
with the error of a paired bootstrap over the images. Times are of the process, one thread.
"""

import argparse
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from environment import save

from paretopath.evaluation.evaluator import Evaluator
from paretopath.evaluation.fitted import FittedEvaluator
from paretopath.paths import ExecutionPath
from paretopath.run import Run, build_scoring, build_space, load_model
from paretopath.tasks.resampling import draw_resamples

PATHS_AT_ONCE = 10  # as a search proposes them


def accuracies(
    evaluator: Evaluator | FittedEvaluator, paths: list[ExecutionPath]
) -> tuple[np.ndarray, np.ndarray, float]:
    """Accuracies (paths,), those on resamples (paths, RESAMPLES), seconds a path."""
    started, values, resampled = time.process_time(), [], []
    for start in range(0, len(paths), PATHS_AT_ONCE):
        some = paths[start : start + PATHS_AT_ONCE]
        evaluation = evaluator.begin(some)
        evaluation.advance(range(len(some)))
        for index, scorer in enumerate(evaluation.scorers):
            score = evaluation.score(index)
            assert not isinstance(score, Exception), score
            draws = draw_resamples(score.samples, seed=0)
            values.append(score.value)
            resampled.append(scorer.resampled(draws))  # type: ignore[attr-defined]
    seconds = (time.process_time() - started) / len(paths)
    return np.array(values), np.array(resampled), seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path, help="a run directory with weights")
    parser.add_argument("--paths", type=int, default=50)
    parser.add_argument("--images", type=int, default=256, help="for repair")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    run = Run.open(arguments.run, device="cpu")
    space = build_space(run.recipe)
    model = load_model(space, run.weights_file, run)
    scoring = build_scoring(run, space)
    rng = np.random.default_rng(0)
    paths = [space.sample(rng) for _ in range(arguments.paths)]
    found = {}
    for name, images in {"compensated": 0, "repaired": arguments.images}.items():
        evaluator = replace(scoring, repair_images=images).evaluator(model, "test")
        found[name] = accuracies(evaluator, paths)
    full, _, _ = accuracies(scoring.evaluator(model, "test"), [space.full])
    before, after = found["compensated"], found["repaired"]
    gain, error = after[0] - before[0], np.std(after[1] - before[1], axis=1, ddof=1)
    standardised = gain / np.maximum(error, 1e-9)
    content = {
        "run": run.recipe.name,
        "paths": len(paths),
        "metric": scoring.task.metric,
        "full": float(full[0]),
        "compensated": float(before[0].mean()),
        "repaired": float(after[0].mean()),
        "gain": float(gain.mean()),
        "worst_gain": float(gain.min()),
        "worst_gain_in_standard_errors": float(standardised[np.argmin(gain)]),
        "worse_by_two_standard_errors": int((standardised < -2).sum()),
        "better_by_two_standard_errors": int((standardised > 2).sum()),
        "seconds_a_path": {name: seconds for name, (_, _, seconds) in found.items()},
    }
    for name, value in content.items():
        print(f"{name}: {value}")
    save(f"repair_paths_{run.recipe.name}", content)


if __name__ == "__main__":
    main()
