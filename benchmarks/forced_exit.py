"""Every image out at one exit of ViT-B/16, on random input, against the full model.

    python benchmarks/forced_exit.py [--batch 8] [--rounds 7] [--device cpu]

The limits by MACs are 12/9, 12/6 and 12/3; a multi-exit study on an RTX A6000 measured 1.32x, 1.96x
and 3.83x.
"""

import argparse
import time

import torch
from environment import median, save

import search_spaces
from paretopath.cost import CostTable
from paretopath.cost import create as cost_model

PUBLISHED = {9: 1.32, 6: 1.96, 3: 3.83}  # images per second against the full model, RTX A6000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    arguments = parser.parse_args()
    device = torch.device(arguments.device)
    space = search_spaces.create("vit", model="vit_base_patch16_224", exits=[3, 6, 9, 12])
    torch.manual_seed(0)
    model = space.build().to(device)
    images = torch.randn(arguments.batch, *space.input_shape, device=device)
    paths = {value: space.canonical({"exit": value}) for value in (12, 9, 6, 3)}
    seconds: dict[int, list[float]] = {value: [] for value in paths}
    for round_ in range(arguments.rounds + 1):  # the first is a warm-up
        for value, path in paths.items():
            with torch.inference_mode(), model.active(path):
                _wait(device)
                start = time.perf_counter()
                model(images)
                _wait(device)
            if round_:
                seconds[value].append(time.perf_counter() - start)
    table = CostTable(space, cost_model("accelerator", preset="magnet-16nm"))
    costs = {value: table([path]).row(0) for value, path in paths.items()}
    rows = []
    for value in (9, 6, 3):
        ratio = median([a / b for a, b in zip(seconds[12], seconds[value], strict=True)])
        macs = costs[12]["macs"] / costs[value]["macs"]
        rows.append(
            {"exit": value, "speedup": ratio, "macs_limit": macs, "published": PUBLISHED[value]}
        )
        print(
            f"exit after block {value}: {ratio:.2f}x measured, {macs:.2f}x by MACs, "
            f"{PUBLISHED[value]:.2f}x published (A6000)"
        )
    throughput = {v: arguments.batch / median(s) for v, s in seconds.items()}
    print(", ".join(f"block {v}: {t:.2f} images/s" for v, t in throughput.items()))
    save(
        f"forced_exit_{device.type}",
        {"batch": arguments.batch, "rows": rows, "images_per_second": throughput},
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


if __name__ == "__main__":
    main()
