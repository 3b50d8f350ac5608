"""Leaving early, image by image, against running every image to the end.

    paretopath exits RUN
    python benchmarks/early_exit.py RUN [--max-loss 1] [--rounds 15] [--threads 2] [--timed 1024]

RUN is a run directory of ``recipes/digits_vit.yaml`` or ``fashion_mnist_vit.yaml``. Two ways: one
threshold for the exits of the full path, chosen by hand on validation (nothing lost there, then the
least expected compute); and the policy that is promised to lose no more than so many points, on
whatever path it is. Accuracy is of the whole test split, time of full batches of 64 and 256 of its
first images, the ways taking turns; with one thread it is the processor's time, so that others on
the machine don't count. Beside the speed-up stands depth / mean(exit), which counts blocks alone
and is what papers report. Last, images come one by one: percentiles of the time that each takes,
since a mean hides those that go to the end.
"""

import argparse
import itertools
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from environment import median, save

from paretopath.deploy import DynamicModel, EarlyExit, choose_threshold
from paretopath.front import load_front
from paretopath.run import Run, build_space, open_images

THRESHOLDS = [0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.97, 0.98, 0.99, 0.995, 0.999, 1.0]
MAX_LOSS = 0.0  # on validation, so that the test split has room to differ
BY_HAND = 2000  # validation images, about, by which a threshold is chosen


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
    parser.add_argument("--max-loss", type=float, default=1.0)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--timed", type=int, default=1024, help="test images that are timed")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    recipe = Run.open(arguments.run, device="cpu").recipe
    data = open_images(recipe, build_space(recipe))
    dynamic = DynamicModel.load(arguments.run)
    blocks = {name: int(name.split(".")[1]) for name in dynamic.exits}
    seen = -(-BY_HAND // data.eval_batch_size)
    asked, chosen = choose(dynamic, [*itertools.islice(data.loader("validation"), seen)], blocks)
    print(f"by hand: exits {', '.join(asked)} of the full path, threshold {chosen.threshold}")
    point = dynamic.choose_policy(max_loss=arguments.max_loss / 100)
    print(f"policy, at most {arguments.max_loss} points: path {point.path.id}, {point.policy}")
    tested = point.test
    assert tested is not None
    print(
        f"  on test {100 * tested.loss:.2f} ± {100 * tested.loss_error:.2f} points less, energy "
        f"{full_energy(arguments.run) / tested.cost:.2f}x less"
    )
    ways: dict[str, Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]] = {
        "by hand": lambda x: dynamic.classify_early(x, threshold=chosen.threshold, exits=asked),
        "policy": lambda x: dynamic.classify_early(x, policy=point),
    }
    images, labels = data.split("test").__getitems__(range(len(data.split("test"))))
    rows = []
    for batch in (64, 256):
        starts = range(0, min(len(images), arguments.timed) - batch + 1, batch)
        parts = [images[i : i + batch] for i in starts]
        seconds = timed(dynamic, ways, parts, arguments.rounds)
        for name, leave in ways.items():
            row = {"way": name, "batch": batch} | outcome(dynamic, leave, images, labels, blocks)
            pairs = zip(seconds["full"], seconds[name], strict=True)
            row["speedup"] = median([a / b for a, b in pairs])
            row["full_ms_an_image"] = 1e3 * median(seconds["full"]) / batch / len(parts)
            row["early_ms_an_image"] = 1e3 * median(seconds[name]) / batch / len(parts)
            rows.append(row)
            print(
                f"batch {batch:3}, {name}: {row['speedup']:.2f}x, "
                f"depth/mean(exit) {row['depth_over_mean_exit']:.2f}, accuracy "
                f"{100 * row['accuracy_early']:.1f} % against {100 * row['accuracy_full']:.1f} % "
                f"(± {100 * row['standard_error']:.1f}) on {row['images']} test images"
            )
    alone = latencies(dynamic, ways, images[: arguments.timed], max(1, arguments.rounds // 5))
    for name, found in alone.items():
        told = ", ".join(f"{label} {value:.2f}" for label, value in found.items())
        print(f"one by one, {name}: {told} ms")
    save(
        f"early_exit_{recipe.name}",
        {
            "recipe": recipe.name,
            "by_hand": {"exits": asked, "threshold": chosen.threshold},
            "policy": {
                "path": dict(point.path),
                "confidence": point.policy.confidence,
                "exits": point.policy.exits,
                "thresholds": point.policy.thresholds,
                "promised_loss": point.promised_loss,
                "test": asdict(tested),
                "energy_of_the_full_path": point.cost("energy_mj") / full_energy(arguments.run),
            },
            "batches": rows,
            "one_by_one_ms": alone,
        },
    )


def full_energy(run: Path) -> float:
    """What the full path takes, in mJ."""
    energy: float = load_front(run).full.energy_mj
    return energy


def latencies(
    dynamic: DynamicModel,
    ways: dict[str, Callable[[torch.Tensor], Any]],
    images: torch.Tensor,
    rounds: int,
) -> dict[str, dict[str, float]]:
    """Percentiles over images of the milliseconds that each takes alone: the median of its rounds,
    after one to warm up.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    taken = {name: torch.zeros(rounds + 1, len(images)) for name in ("full", *ways)}
    with torch.inference_mode(), dynamic.model.active(dynamic.model.space.full):
        for round_ in range(rounds + 1):
            for i in range(len(images)):
                for name, row in taken.items():
                    start = clock()
                    dynamic.model(images[i : i + 1]) if name == "full" else ways[name](
                        images[i : i + 1]
                    )
                    row[round_, i] = 1e3 * (clock() - start)
    levels = {"p50": 0.5, "p90": 0.9, "p99": 0.99}
    return {
        name: {"mean": float(each.mean())}
        | {label: float(each.quantile(level)) for label, level in levels.items()}
        for name, each in ((name, row[1:].median(0).values) for name, row in taken.items())
    }


def timed(
    dynamic: DynamicModel,
    ways: dict[str, Callable[[torch.Tensor], Any]],
    parts: list[torch.Tensor],
    rounds: int,
) -> dict[str, list[float]]:
    """Seconds that the full path and each way take over batches, taking turns, after a warm-up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in ("full", *ways)}
    for round_ in range(rounds + 1):
        for name in seconds:
            with torch.inference_mode(), dynamic.model.active(dynamic.model.space.full):
                start = clock()
                for x in parts:
                    dynamic.model(x) if name == "full" else ways[name](x)
                if round_:
                    seconds[name].append(clock() - start)
    return seconds


def outcome(
    dynamic: DynamicModel,
    leave: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]],
    images: torch.Tensor,
    labels: torch.Tensor,
    blocks: dict[str, int],
) -> dict[str, Any]:
    """Accuracies of the full path and of leaving early, and where images left."""
    n = len(labels)
    with torch.inference_mode(), dynamic.model.active(dynamic.model.space.full):
        full = int((dynamic.model(images).argmax(-1) == labels).sum()) / n
    logits, taken = leave(images)
    exits = [blocks[dynamic.exits[i]] for i in taken.tolist()]
    return {
        "images": n,
        "accuracy_full": full,
        "accuracy_early": int((logits.argmax(-1) == labels).sum()) / n,
        "standard_error": (full * (1 - full) / n) ** 0.5,
        "depth_over_mean_exit": blocks[dynamic.exits[-1]] / (sum(exits) / n),
    }


if __name__ == "__main__":
    main()
