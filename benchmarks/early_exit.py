"""Leaving early, image by image, against running every image to the end.

    python benchmarks/early_exit.py RUN [--rounds 15] [--threads 2]

RUN is a run directory of ``recipes/digits_vit.yaml``. The threshold and the exits that are asked
are chosen on validation (nothing lost there, then the least expected compute); accuracy is of the
whole test split, time of its full batches of 64 and 256, the two ways taking turns. Beside the
wall-clock speed-up stands depth / mean(exit), which counts blocks alone and is what papers report.
"""

import argparse
import itertools
import time
from pathlib import Path

import torch
from environment import median, save

from paretopath.deploy import DynamicModel, EarlyExit, choose_threshold
from paretopath.run import Run, build_space, open_images

THRESHOLDS = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0]
MAX_LOSS = 0.0  # on validation, so that the test split has room to differ


def blocks_run(result: EarlyExit, blocks: list[int], asked: int) -> float:
    """Blocks an image runs on average; a head costs about a hundredth of a block here."""
    return sum(s * b for s, b in zip(result.shares, blocks, strict=True)) + 0.05 * asked


def choose(
    dynamic: DynamicModel, batches: list, blocks: dict[str, int]
) -> tuple[tuple[str, ...], EarlyExit]:
    """The exits to ask and the threshold that run the fewest blocks on validation for the allowed
    loss.
    """
    best = None
    early = dynamic.exits[:-1]
    for count in range(1, min(4, len(early) + 1)):
        for asked in itertools.combinations(early, count):
            sweep = dynamic.sweep_thresholds(batches, THRESHOLDS, exits=asked)
            result = choose_threshold(sweep, max_loss=MAX_LOSS)
            cost = blocks_run(
                result, [*(blocks[e] for e in asked), blocks[dynamic.exits[-1]]], count
            )
            if best is None or cost < best[0]:
                best = (cost, asked, result)
    assert best is not None
    return best[1], best[2]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = Run.open(arguments.run, device="cpu").recipe
    data = open_images(recipe, build_space(recipe))
    dynamic = DynamicModel.load(arguments.run)
    blocks = {name: int(name.split(".")[1]) for name in dynamic.exits}
    depth = blocks[dynamic.exits[-1]]
    asked, chosen = choose(dynamic, list(data.loader("validation")), blocks)
    print(f"chosen on validation: exits {', '.join(asked)}, threshold {chosen.threshold}")
    images, labels = data.split("test").__getitems__(range(len(data.split("test"))))
    full = dynamic.model.space.full
    rows = []
    for batch in (64, 256):
        parts = [
            (images[i : i + batch], labels[i : i + batch])
            for i in range(0, len(images) - batch + 1, batch)
        ]
        timed = batch * len(parts)
        early_s, full_s = [], []
        for round_ in range(arguments.rounds + 1):  # the first is a warm-up
            start = time.perf_counter()
            with torch.inference_mode(), dynamic.model.active(full):
                for x, _ in parts:
                    dynamic.model(x)
            middle = time.perf_counter()
            for x, _ in parts:
                dynamic.classify_early(x, threshold=chosen.threshold, exits=asked)
            end = time.perf_counter()
            if round_:
                full_s.append(middle - start)
                early_s.append(end - middle)
        n = len(labels)
        with torch.inference_mode(), dynamic.model.active(full):
            right_full = int((dynamic.model(images).argmax(-1) == labels).sum())
        logits, taken = dynamic.classify_early(images, threshold=chosen.threshold, exits=asked)
        right_early = int((logits.argmax(-1) == labels).sum())
        exits = [blocks[dynamic.exits[i]] for i in taken.tolist()]
        rows.append(
            {
                "batch": batch,
                "images": n,
                "accuracy_full": right_full / n,
                "accuracy_early": right_early / n,
                "standard_error": (right_full / n * (1 - right_full / n) / n) ** 0.5,
                "speedup": median([a / b for a, b in zip(full_s, early_s, strict=True)]),
                "depth_over_mean_exit": depth / (sum(exits) / n),
                "full_ms_an_image": 1e3 * median(full_s) / timed,
                "early_ms_an_image": 1e3 * median(early_s) / timed,
            }
        )
        row = rows[-1]
        print(
            f"batch {batch:3}: {row['speedup']:.2f}x wall clock, "
            f"depth/mean(exit) {row['depth_over_mean_exit']:.2f}, accuracy "
            f"{100 * row['accuracy_early']:.1f} % against {100 * row['accuracy_full']:.1f} % "
            f"(± {100 * row['standard_error']:.1f}) on {n} test images"
        )
    save(
        "early_exit",
        {"recipe": recipe.name, "exits": asked, "threshold": chosen.threshold, "batches": rows},
    )


if __name__ == "__main__":
    main()
