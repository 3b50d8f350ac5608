"""A multi-exit study's three tables on ViT-B/16, and what leaving image by image gives instead.

    python benchmarks/multi_exit.py [--threads 1] [--batches 8 32] [--rounds 3]

With one thread it is the processor's time that is compared, so that others on the machine don't
count; with more, the wall clock's.

The study copied the classifier of ``vit_base_patch16_224`` to blocks 3, 6 and 9 and let a whole
batch leave when its least sure image was sure. Its tables: every image forced out at one exit; its
rule; and, in its place, images that leave one by one while the batch shrinks. Weights are random
here, since only time is measured: how sure an image is at an exit is drawn at random, so that given
shares leave, once for each image and alike for both rules. A real model's confidences, and what
accuracy they keep, are in ``benchmarks/natural_exits.py`` and ``benchmarks/early_exit.py``.
"""

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from environment import median, save
from torch import Tensor

import search_spaces
from paretopath.cost import CostTable
from paretopath.cost import create as cost_model
from paretopath.deploy.exits import leave_early
from paretopath.elastic.exits import steps_with_exits

STUDY_GPU = {9: 1.32, 6: 1.96, 3: 3.83}  # forced exits, images a second against the full model
STUDY_RULE = 1.00  # what its rule gave at every exit on the GPU; 1.00 to 1.14 on a CPU
SHARES = {3: 0.25, 6: 0.25, 9: 0.25}  # of all images, which leave there; the rest goes to the end
RULE_BATCHES = (1, 4, 16, 32, 64)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batches", type=int, nargs="+", default=[8, 32])
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    space = search_spaces.create("vit", model="vit_base_patch16_224", exits=[3, 6, 9, 12])
    model = space.build()
    table = CostTable(space, cost_model("accelerator", preset="magnet-16nm"))
    macs = {e: int(table([space.canonical({"exit": e})]).macs[0]) for e in (3, 6, 9, 12)}
    left = drawn_exits(4096)
    expected = sum(macs[int(e)] for e in left) / len(left)
    print(f"limit by MACs of images that leave one by one: {macs[12] / expected:.2f}x")
    rows: list[dict[str, Any]] = []
    for batch in arguments.batches:
        images = torch.randn(batch, *space.input_shape)
        where = drawn_exits(batch)
        runs: dict[str, Callable[[], Any]] = {"full": lambda images=images: model(images)}
        for e in (3, 6, 9):
            runs[f"forced {e}"] = forced(model, e, images)
        runs["the study's rule"] = leaving(model, images, where, whole_batches=True)
        runs["image by image"] = leaving(model, images, where, whole_batches=False)
        seconds = timed(runs, arguments.rounds)
        mine = sum(macs[int(e)] for e in where) / batch
        limits = {f"forced {e}": macs[12] / macs[e] for e in (3, 6, 9)}
        limits |= {"image by image": macs[12] / mine}
        limits["the study's rule"] = macs[12] / macs[int(where.max())]
        published = {f"forced {e}": gain for e, gain in STUDY_GPU.items()}
        published["the study's rule"] = STUDY_RULE
        print(f"\nbatch {batch}: {'gain':>24} {'by MACs':>9} {'study':>7}")
        for name in runs:
            if name == "full":
                continue
            pairs = zip(seconds["full"], seconds[name], strict=True)
            gain = median([a / b for a, b in pairs])
            study = published.get(name)
            print(
                f"{name:>24} {gain:9.2f}x {limits[name]:8.2f}x "
                f"{f'{study:6.2f}x' if study else '      –'}"
            )
            rows.append(
                {
                    "batch": batch,
                    "what": name,
                    "speedup": gain,
                    "macs_limit": limits[name],
                    "published": study,
                    "milliseconds_an_image": 1e3 * median(seconds[name]) / batch,
                }
            )
    rule = rule_shares()
    print("\nbatches that may leave whole after block 9, by how many single images are sure there:")
    for single, by_size in rule.items():
        cells = "  ".join(f"{size}: {100 * share:.2g} %" for size, share in by_size.items())
        print(f"  {single}: {cells}")
    save("multi_exit", {"shares": SHARES, "tables": rows, "batches_that_leave_whole": rule})


def drawn_exits(images: int) -> np.ndarray:
    """(images,) the block after which each is sure for the first time."""
    rng = np.random.default_rng(0)
    return rng.choice([*SHARES, 12], size=images, p=[*SHARES.values(), 1 - sum(SHARES.values())])


def forced(model: Any, e: int, images: Tensor) -> Callable[[], Any]:
    steps = model.steps(model.space.canonical({"exit": e}))

    def run() -> Any:
        state = images
        for step in steps:
            state = step(state)
        return state

    return run


def leaving(
    model: Any, images: Tensor, where: np.ndarray, *, whole_batches: bool
) -> Callable[[], Any]:
    """Runs with every exit asked; images leave where it was drawn that they are sure.

    Args:
        model: with exits after blocks 3, 6 and 9.
        images: (B, C, Y, X).
        where: (B,) the block after which each is sure.
        whole_batches: they leave together, when the last of them is sure.
    """
    steps = steps_with_exits(model, model.space.full)
    sure_after = torch.from_numpy(where)

    def rule(number: int, output: Tensor, memory: tuple[Tensor, ...]) -> Any:
        after = memory[0] if memory else sure_after  # of those that stay
        output.softmax(-1).amax(-1)  # what a confidence takes
        sure = after <= (3, 6, 9)[number]
        return (sure.all().expand(len(sure)) if whole_batches else sure), (after,)

    return lambda: leave_early(steps, images, rule)


def timed(runs: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Seconds of each, taking turns; the first round is a warm-up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    with torch.inference_mode():
        for round_ in range(rounds + 1):
            for name, run in runs.items():
                start = clock()
                run()
                if round_:
                    seconds[name].append(clock() - start)
    return seconds


def rule_shares(batches: int = 100_000) -> dict[str, dict[int, float]]:
    """How often a whole batch is sure, if single images are with a probability: what the study's
    rule waits for. Images are taken as independent.
    """
    rng = np.random.default_rng(0)
    found = {}
    for single in (0.32, 0.81, 0.95, 0.99):
        sure = {
            size: (rng.random((batches // size, size)) < single).all(1) for size in RULE_BATCHES
        }
        found[f"{100 * single:.0f} %"] = {size: float(s.mean()) for size, s in sure.items()}
    return found


if __name__ == "__main__":
    main()
