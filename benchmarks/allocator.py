"""What memory from the kernel costs on a CPU, and what keeping it costs.

    python benchmarks/allocator.py [--model tf_efficientnet_lite0] [--threads 1]

The same evaluation and the same training steps in fresh processes: as glibc does it, and with
:func:`paretopath.devices.keep_freed_memory`, as every run does. Processor time, in turns, the least
of three; peak memory of the process.
"""

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from typing import Any

import timm
import torch
from environment import save
from torch.nn.functional import cross_entropy

from paretopath.devices import keep_freed_memory

WAYS = ("as glibc does it", "kept")
ROUNDS = 3


def times(work: Any) -> dict[str, float]:
    """Seconds that a call takes of the processor (user and system) and of the clock."""
    before, began = os.times(), time.perf_counter()
    work()
    after = os.times()
    return {
        "user_s": round(after.user - before.user, 2),
        "system_s": round(after.system - before.system, 2),
        "wall_s": round(time.perf_counter() - began, 2),
    }


def work(arguments: argparse.Namespace) -> dict[str, Any]:
    """One process: 3 x 64 images evaluated, 5 training steps of 16."""
    if arguments.way == "kept" and not keep_freed_memory():
        raise SystemExit("this C library is not glibc, or its variables are set")
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = timm.create_model(arguments.model, num_classes=10)
    images = torch.randn(64, 3, 224, 224)
    few, labels = images[:16], torch.arange(16) % 10

    def evaluate(rounds: int = 3) -> None:
        model.eval()
        with torch.inference_mode():
            for _ in range(rounds):
                model(images)

    def train(steps: int = 5) -> None:
        model.train()
        for _ in range(steps):
            cross_entropy(model(few), labels).backward()
            model.zero_grad()

    evaluate(1)
    evaluation = times(evaluate)
    train(1)
    training = times(train)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    return {"evaluation": evaluation, "training": training, "peak_mib": peak}


def best(results: list[dict[str, Any]]) -> dict[str, Any]:
    """Of several processes, the one that took the least processor time; the highest peak."""

    def least(part: str) -> dict[str, float]:
        return min((r[part] for r in results), key=lambda t: t["user_s"] + t["system_s"])

    peak = max(r["peak_mib"] for r in results)
    return {"evaluation": least("evaluation"), "training": least("training"), "peak_mib": peak}


def main() -> None:
    """Runs the ways in turns and prints them side by side."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="tf_efficientnet_lite0", help="a timm name")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(work(arguments)))
        return
    results: dict[str, list[dict[str, Any]]] = {way: [] for way in WAYS}
    for _ in range(ROUNDS):
        for way, found in results.items():
            command = [sys.executable, *sys.argv, "--way", way]
            output = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            found.append(json.loads(output))
    rows = {way: best(found) for way, found in results.items()}
    print(f"{'':18}{'evaluation, s':>24}{'training, s':>24}{'peak MiB':>10}")
    for way, row in rows.items():
        cells = [
            f"{row[part]['user_s']:.2f} + {row[part]['system_s']:.2f} system"
            for part in ("evaluation", "training")
        ]
        print(f"{way:18}{cells[0]:>24}{cells[1]:>24}{row['peak_mib']:>10}")
    for part in ("evaluation", "training"):
        glibc, kept = (row[part]["user_s"] + row[part]["system_s"] for row in rows.values())
        print(f"{part}: {glibc / kept:.2f}x")
    save("allocator", {"model": arguments.model, "processor_time": rows})


if __name__ == "__main__":
    main()
