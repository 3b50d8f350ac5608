"""Leaving early on natural images, everything included, at most half a point lost on held-out ones.

    python benchmarks/natural_exits.py WEIGHTS CIFAR10 CACHE [--head mlp] [--threads 1]

WEIGHTS are a ViT-S/14 as timm names it (``vit_small_patch14_dinov2``, no classifier), CIFAR10 a
folder with ``train.parquet`` and ``validation.parquet`` (columns ``image`` and ``label``). Images
are resized to 98 pixels. The trunk stays frozen; heads after blocks 3, 6, 9 and 12, all of one
kind, learn from 16,000 training images. Policies are chosen on 4,000 others; accuracies are of the
5,000 of ``validation.parquet``, which nothing was chosen by. What takes long, tokens after blocks 3
to 12 and trained heads, is kept in CACHE (10 GB).

The full model is the trunk with the best head of the kind after its last block. Both run the same
held-out images in batches, taking turns; with one thread it is the processor's time that is
compared, so that others on the machine don't count. A third way fills batches up again: what stays
after an exit waits there until as many images as a batch has have gathered, or the input ends.
"""

import argparse
import io
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import load_dataset
from environment import median, save
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor

import search_spaces
from paretopath.cost import CostTable
from paretopath.cost import create as cost_model
from paretopath.deploy.exits import Rule, by_policy, leave_early
from paretopath.elastic import ElasticModel, Step
from paretopath.elastic.exits import exits_on_the_way, steps_with_exits
from paretopath.front.dynamic import within_loss
from paretopath.policies.costs import exit_costs
from paretopath.policies.outputs import ExitOutputs
from paretopath.policies.points import PathPolicies, dynamic_points, split_result
from paretopath.policies.search import search_policies
from search_spaces.exit_heads import OWN_HEADS

PIXELS, BLOCKS = 98, (3, 6, 9, 12)
FIRST = 3  # of the blocks whose tokens are kept, to the last
PARTS = {
    "train": ("train.parquet", 0, 16_000),
    "choose": ("train.parquet", 16_000, 20_000),
    "held": ("validation.parquet", 0, 5_000),
}
EPOCHS = {"linear": 12, "mlp": 10, "convolution": 7, "attention": 7}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
MAX_LOSS = 0.005


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("weights", type=Path)
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--head", choices=list(OWN_HEADS), default="mlp")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    cache: Path = arguments.cache
    cache.mkdir(parents=True, exist_ok=True)
    space = search_spaces.create(
        "vit",
        model="vit_small_patch14_dinov2",
        arguments={"img_size": PIXELS, "num_classes": 10},
        exits=BLOCKS,
        exit_head=arguments.head,
        last_head=arguments.head,
    )
    model = space.build(str(resized(arguments.weights, cache)))
    for part, place in PARTS.items():
        keep_tokens(model, part, arguments.cifar10, place, cache)
    for block in BLOCKS:
        model.units[f"exits_{block}"].head.load_state_dict(
            trained_head(model, arguments.head, block, cache)
        )
    seen, held = (outputs(model, part, cache) for part in ("choose", "held"))
    np.savez(
        cache / f"outputs_{arguments.head}.npz",
        exits=np.array(seen.exits),
        logits=torch.cat([seen.logits, held.logits], 1).numpy(),
        targets=torch.cat([seen.targets, held.targets]).numpy(),
    )
    table = CostTable(space, cost_model("accelerator", preset="magnet-16nm"))
    costs = exit_costs(table, exits_on_the_way(model, space.full))
    tried = search_policies(seen, costs, seen.right[-1], cost="macs")
    found = PathPolicies(space.full, "searched", seen, costs, tried)
    point = within_loss(dynamic_points([found], found, cost="macs"), MAX_LOSS)
    result = split_result(point.policy, held, held.right[-1], costs, "macs")
    full_macs = float(costs.paid([len(BLOCKS) - 1], "macs")[0])
    macs_gain = full_macs / result.cost
    accuracy = held.right.mean(axis=1)
    print(f"held-out accuracy after blocks {BLOCKS}: {np.round(100 * accuracy, 1)} %")
    print(f"policy: {point.policy}")
    print(
        f"held out: {100 * result.accuracy:.2f} ± {100 * result.error:.2f} %, lost "
        f"{100 * result.loss:.2f} ± {100 * result.loss_error:.2f}; MACs {macs_gain:.2f}x less"
    )
    rows = [timed(model, point.policy, cache, b, arguments.rounds) for b in (64, 256)]
    for row in rows:
        share = row["speedup"] / macs_gain
        print(
            f"batch {row['batch']}: {row['speedup']:.2f}x, {share:.2f} of the gain in MACs; "
            f"refilled {row['speedup_refilled']:.2f}x"
        )
    save(
        f"natural_exits_{arguments.head}",
        {
            "data": "CIFAR-10 at 98 px, 5,000 held-out images",
            "head": arguments.head,
            "accuracy_by_exit": dict(zip(seen.exits, accuracy.tolist(), strict=True)),
            "policy": {
                "confidence": point.policy.confidence,
                "exits": point.policy.exits,
                "thresholds": point.policy.thresholds,
                "temperatures": point.policy.temperatures,
            },
            "promised_loss": point.promised_loss,
            "held_out": {
                "accuracy": result.accuracy,
                "error": result.error,
                "loss": result.loss,
                "loss_error": result.loss_error,
                "shares": result.shares,
                "macs_gain": macs_gain,
            },
            "batches": rows,
        },
    )


def resized(weights: Path, cache: Path) -> Path:
    """The weights with positions for 98 pixels: bicubic, without antialiasing."""
    file = cache / "vit_98.safetensors"
    if not file.is_file():
        state = load_file(weights)
        positions = state["pos_embed"]
        side = round((positions.shape[1] - 1) ** 0.5)
        grid = positions[:, 1:].unflatten(1, (side, side)).permute(0, 3, 1, 2)
        small = F.interpolate(grid, size=PIXELS // 14, mode="bicubic", align_corners=False)
        patches = small.flatten(2).transpose(1, 2)
        state["pos_embed"] = torch.cat([positions[:, :1], patches], 1).contiguous()
        save_file(state, file)
    return file


def keep_tokens(
    model: ElasticModel, part: str, folder: Path, place: tuple[str, int, int], cache: Path
) -> None:
    """Writes images, labels and tokens after each block of a part, unless they are there."""
    name, start, end = place
    file = cache / f"{part}_tokens.npy"
    if file.is_file() and (cache / f"{part}_x.npy").is_file():
        return
    table = load_dataset("parquet", data_files=str(folder / name), split=f"train[{start}:{end}]")
    table = table.cast_column("image", table.features["image"].__class__(decode=False))
    pictures = [
        np.asarray(
            Image.open(io.BytesIO(row["image"]["bytes"]))
            .convert("RGB")
            .resize((PIXELS, PIXELS), Image.Resampling.BICUBIC)
        )
        for row in table
    ]
    np.save(cache / f"{part}_x.npy", np.stack(pictures))
    np.save(cache / f"{part}_y.npy", np.array(table["label"]))
    temporary = file.with_suffix(".part.npy")
    steps = model.steps(model.space.full)[:-1]
    kept = np.lib.format.open_memmap(
        temporary, "w+", np.float16, (end - start, len(steps) - FIRST, 50, 384)
    )
    for i in range(0, end - start, 100):
        state: Any = normalised(np.stack(pictures[i : i + 100]))
        with torch.inference_mode():
            for number, step in enumerate(steps):  # the stem, then the blocks
                state = step(state)
                if number >= FIRST:
                    kept[i : i + 100, number - FIRST] = state.half().numpy()
    kept.flush()
    temporary.rename(file)


def normalised(pixels: np.ndarray) -> Tensor:
    """(B, Y, X, 3) uint8 -> (B, 3, Y, X) float32, as the weights expect it."""
    mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
    return (torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255 - mean) / std


def tokens(part: str, block: int, cache: Path) -> Tensor:
    """(n, N, D) float16 after a block."""
    kept = np.load(cache / f"{part}_tokens.npy", mmap_mode="r")
    return torch.from_numpy(np.ascontiguousarray(kept[:, block - FIRST]))


def trained_head(model: ElasticModel, kind: str, block: int, cache: Path) -> dict[str, Tensor]:
    """The weights of a head after a block, learnt from the labels on the frozen trunk."""
    file = cache / f"head_{kind}_{block}.pt"
    if not file.is_file():
        torch.manual_seed(0)
        head = OWN_HEADS[kind](model.space.reference())  # type: ignore[attr-defined]
        features = tokens("train", block, cache)
        labels = torch.from_numpy(np.load(cache / "train_y.npy"))
        batches = len(features) // 128
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.05)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, 1.5e-3, total_steps=EPOCHS[kind] * batches, pct_start=0.1
        )
        for _ in range(EPOCHS[kind]):
            for chosen in torch.randperm(len(features))[: batches * 128].split(128):
                optimizer.zero_grad()
                logits = head(features[chosen].float())
                F.cross_entropy(logits, labels[chosen], label_smoothing=0.05).backward()
                optimizer.step()
                schedule.step()
        torch.save(head.state_dict(), file)
    return torch.load(file, weights_only=True)  # type: ignore[no-any-return]


@torch.inference_mode()
def outputs(model: ElasticModel, part: str, cache: Path) -> ExitOutputs:
    """What the exits say of the images of a part."""
    logits = []
    for block in BLOCKS:
        head, features = model.units[f"exits_{block}"].head, tokens(part, block, cache)
        logits.append(torch.cat([head(chunk.float()) for chunk in features.split(500)]))
    labels = torch.from_numpy(np.load(cache / f"{part}_y.npy"))
    every = torch.stack(logits)
    right = (every.argmax(-1) == labels).numpy()
    return ExitOutputs(tuple(f"exits.{block}" for block in BLOCKS), every, labels, right)


def timed(model: ElasticModel, policy: Any, cache: Path, batch: int, rounds: int) -> dict[str, Any]:
    """Both ways over 512 held-out images in batches, taking turns; after a warm-up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    pixels = np.load(cache / "held_x.npy", mmap_mode="r")
    steps, rule = steps_with_exits(model, model.space.full, policy.exits[:-1]), by_policy(policy)
    batches = [normalised(np.array(pixels[i : i + batch])) for i in range(0, 512, batch)]
    full_s, early_s, refilled_s = [], [], []
    with torch.inference_mode():
        expected = torch.cat([leave_early(steps, images, rule)[0] for images in batches])
        torch.testing.assert_close(refilled(steps, batches, rule), expected, rtol=1e-3, atol=1e-3)
        for _ in range(rounds):
            start = clock()
            for images in batches:
                model(images)
            middle = clock()
            for images in batches:
                leave_early(steps, images, rule)
            end = clock()
            refilled(steps, batches, rule)
            full_s.append(middle - start)
            early_s.append(end - middle)
            refilled_s.append(clock() - end)
    return {
        "batch": batch,
        "speedup": median([a / b for a, b in zip(full_s, early_s, strict=True)]),
        "speedup_refilled": median([a / b for a, b in zip(full_s, refilled_s, strict=True)]),
        "full_ms_an_image": 1e3 * median(full_s) / 512,
        "early_ms_an_image": 1e3 * median(early_s) / 512,
    }


def refilled(steps: Sequence[Step], batches: list[Tensor], rule: Rule) -> Tensor:
    """Logits in input order, survivors of several batches joined at each exit. For confidences
    without memory.
    """
    size, sections = len(batches[0]), sections_of(steps)
    waiting: list[list[tuple[Tensor, Tensor]]] = [[] for _ in sections]  # (numbers, states)
    done: dict[int, tuple[Tensor, Tensor]] = {}

    def run(number: int) -> None:
        images = torch.cat([numbers for numbers, _ in waiting[number]])
        state: Any = torch.cat([states for _, states in waiting[number]])
        waiting[number].clear()
        *body, exit_ = sections[number]
        for step in body:
            state = step(state)
        out = exit_(state)
        sure = torch.ones(len(out), dtype=torch.bool)
        if number + 1 < len(sections):
            sure, _ = rule(number, out, ())
            if not sure.all():
                waiting[number + 1].append((images[~sure], state[~sure]))
        done[len(done)] = (images[sure], out[sure])

    for number, batch in enumerate(batches):
        waiting[0].append((torch.arange(number * size, number * size + len(batch)), batch))
        for section in range(len(sections)):
            if sum(len(numbers) for numbers, _ in waiting[section]) >= size:
                run(section)
    for section in range(len(sections)):
        if waiting[section]:
            run(section)
    order = torch.cat([numbers for numbers, _ in done.values()]).argsort()
    return torch.cat([out for _, out in done.values()])[order]


def sections_of(steps: Sequence[Step]) -> list[list[Step]]:
    """Steps from one exit to the next, each with its exit at the end."""
    sections: list[list[Step]] = [[]]
    for step in steps:
        sections[-1].append(step)
        if step.unit.is_exit:
            sections.append([])
    return sections[:-1]


if __name__ == "__main__":
    main()
