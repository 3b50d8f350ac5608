"""Leaving early on natural images, everything included, at most half a point lost on held-out ones.

    python benchmarks/natural_exits.py cifar10 WEIGHTS FOLDER CACHE [--blocks 3 6 9 12]
        [--head mlp] [--threads 1]
    python benchmarks/natural_exits.py clothing WEIGHTS FOLDER CACHE

WEIGHTS are a ViT-S/14 as timm names it (``vit_small_patch14_dinov2``, no classifier), FOLDER holds
``train.parquet`` and ``validation.parquet`` (columns ``image`` and ``label``). The trunk stays
frozen; heads after some blocks learn from the first training images, policies are chosen on others
of them; accuracies are of ``validation.parquet``, which nothing was chosen by. What takes long,
tokens after those blocks and trained heads, is kept in CACHE (38 kB for an image and a block, at 98
pixels). Tokens that heads learn from are computed in bfloat16 where the processor does.

The full model is the trunk with the best head of all kinds after its last block, by the images that
policies are chosen on. A policy may be of a path to any of the exits; what such paths come to if
nobody leaves them early is printed beside. Full model and policy run the same held-out images in
batches, taking turns; with one thread it is the processor's time that is compared, so that others
on the machine don't count. A third way fills batches up again: what stays after an exit waits there
until as many images as a batch has have gathered, or the input ends.
"""

import argparse
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import median, save
from frozen_trunk import Images, Trunk, exit_outputs, read_images
from torch import Tensor, nn

import search_spaces
from paretopath.cost import CostTable
from paretopath.cost import create as cost_model
from paretopath.deploy.exits import Rule, by_policy, leave_early
from paretopath.elastic import ElasticModel, ElasticSpace, Step
from paretopath.elastic.exits import exit_paths, exits_on_the_way, steps_with_exits
from paretopath.front.dynamic import DynamicPoint, SplitResult, within_loss
from paretopath.policies.costs import exit_costs
from paretopath.policies.outputs import ExitOutputs
from paretopath.policies.points import PathPolicies, dynamic_points, split_result
from paretopath.policies.search import search_policies
from search_spaces.exit_heads import OWN_HEADS


@dataclass(frozen=True)
class Set:
    """A data set, and how it is divided.

    Attributes:
        pixels: of a side.
        train: of ``train.parquet``, how many images heads learn from; the next ones choose.
        choose: how many.
        timed: how many held-out images are run to take the time.
    """

    pixels: int
    train: int
    choose: int
    timed: int


SETS = {
    "cifar10": Set(pixels=98, train=41_000, choose=4_000, timed=512),
    "clothing": Set(pixels=112, train=2_300, choose=768, timed=256),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", choices=list(SETS))
    parser.add_argument("weights", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument(
        "--blocks", type=int, nargs="+", default=[3, 6, 9, 12], help="with a head after them"
    )
    parser.add_argument("--head", choices=list(OWN_HEADS), default="mlp")
    parser.add_argument(
        "--taught", action="store_true", help="exits learn from the last block's head too"
    )
    parser.add_argument("--max-loss", type=float, default=0.5, help="points that may be lost")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    arguments.cache.mkdir(parents=True, exist_ok=True)
    chosen = SETS[arguments.data]
    found = prepared(arguments, chosen)
    (alone, early), full_macs = chosen_policies(found, arguments.max_loss / 100)
    macs_gain = full_macs / early.held_out.cost
    accuracy = found.held.right.mean(axis=1)
    print(f"the last block's best head: {found.last_kind}; {found.last_accuracies}")
    print(f"held-out accuracy after blocks {arguments.blocks}: {np.round(100 * accuracy, 1)} %")
    for name, one in (("nobody leaves early", alone), ("policy", early)):
        result = one.held_out
        print(f"{name}: {one.point.policy}")
        print(
            f"held out: {100 * result.accuracy:.2f} ± {100 * result.error:.2f} %, lost "
            f"{100 * result.loss:.2f} ± {100 * result.loss_error:.2f}; "
            f"MACs {full_macs / result.cost:.2f}x less",
            flush=True,
        )
    rows = []
    for batch in (64, 256):
        batches = found.parts["held"].batches(batch, 0, chosen.timed)
        row = timed(found.model, early.point, batches, arguments.rounds)
        print(
            f"batch {batch}: {row['speedup']:.2f}x, {row['speedup'] / macs_gain:.2f} of the gain "
            f"in MACs; refilled {row['speedup_refilled']:.2f}x"
        )
        rows.append(row)
    save(
        f"natural_exits_{arguments.data}{'_taught' if arguments.taught else ''}",
        {
            "data": arguments.data,
            "pixels": chosen.pixels,
            "images": {part: len(images) for part, images in found.parts.items()},
            "head": arguments.head,
            "last_head": found.last_kind,
            "last_heads_on_the_images_to_choose_by": found.last_accuracies,
            "accuracy_by_exit": dict(zip(found.held.exits, accuracy.tolist(), strict=True)),
            "max_loss": arguments.max_loss / 100,
            "nobody_leaves_early": alone.row(full_macs),
            **early.row(full_macs),
            "batches": rows,
        },
    )


@dataclass(frozen=True)
class Prepared:
    """A model with heads, and what they say.

    Attributes:
        model: its full path has the best head after the last block.
        parts: the images.
        seen: what exits say of the images that policies are chosen on.
        held: the same of the held-out ones.
        last_kind: of the last block's head.
        last_accuracies: of all kinds after the last block, on the images to choose by.
    """

    model: ElasticModel
    parts: dict[str, Images]
    seen: ExitOutputs
    held: ExitOutputs
    last_kind: str
    last_accuracies: dict[str, float]


@dataclass(frozen=True)
class Chosen:
    """What was chosen on some images, and what it comes to on held-out ones."""

    point: DynamicPoint
    held_out: SplitResult

    def row(self, full_macs: float) -> dict[str, Any]:
        """For the result's file."""
        gain = {"macs_gain": full_macs / self.held_out.cost}
        return {
            "policy": asdict(self.point.policy),
            "promised_loss": self.point.promised_loss,
            "held_out": asdict(self.held_out) | gain,
        }


def prepared(arguments: argparse.Namespace, chosen: Set) -> Prepared:
    """Runs the trunk and trains the heads, unless the cache has them."""
    kind, cache = arguments.head, arguments.cache
    parts = read_parts(arguments.folder, chosen)
    blocks = tuple(arguments.blocks)
    plain = space(chosen.pixels, blocks, kind, kind).build(str(arguments.weights))
    trunk = Trunk(plain, blocks, cache)
    for part, images in parts.items():
        trunk.keep(part, images, fast=part == "train")
    labels = parts["train"].labels
    last_kind, accuracies, last = best_last(trunk, parts)
    teacher = trunk.logits("train", last, blocks[-1]) if arguments.taught else None
    heads = {block: trunk.head(kind, block, labels, teacher) for block in blocks[:-1]}
    heads[blocks[-1]] = last
    seen, held = (
        exit_outputs(
            blocks,
            [trunk.logits(part, head, block) for block, head in heads.items()],
            parts[part].labels,
        )
        for part in ("choose", "held")
    )
    np.savez(
        cache / f"outputs_{kind}{'_taught' if arguments.taught else ''}.npz",
        exits=np.array(seen.exits),
        logits=torch.cat([seen.logits, held.logits], 1).numpy(),
        targets=torch.cat([seen.targets, held.targets]).numpy(),
    )
    model = with_heads(chosen.pixels, kind, last_kind, arguments.weights, heads)
    return Prepared(model, parts, seen, held, last_kind, accuracies)


def chosen_policies(found: Prepared, max_loss: float) -> tuple[list[Chosen], float]:
    """The cheapest path that nobody leaves early, and the cheapest policy of a path to any of the
    exits, that are promised to lose no more against the full path; and its MACs.
    """
    table = CostTable(found.model.space, cost_model("accelerator", preset="magnet-16nm"))
    reference = found.seen.right[-1]
    tried = []
    for path in exit_paths(found.model):
        costs = exit_costs(table, exits_on_the_way(found.model, path))
        seen = first_exits(found.seen, len(costs.body["macs"]))
        policies = search_policies(seen, costs, reference, cost="macs")
        tried.append(PathPolicies(path, "searched", seen, costs, policies))
    chosen = []
    for among in ([replace(one, tried=one.tried[:1]) for one in tried], tried):
        point = within_loss(dynamic_points(among, among[-1], cost="macs"), max_loss)
        costs = next(one.costs for one in tried if one.path == point.path)
        held = first_exits(found.held, len(costs.body["macs"]))
        result = split_result(point.policy, held, found.held.right[-1], costs, "macs")
        chosen.append(Chosen(point, result))
    whole = tried[-1].costs
    return chosen, float(whole.paid([len(found.seen.exits) - 1], "macs")[0])


def first_exits(outputs: ExitOutputs, count: int) -> ExitOutputs:
    """What the first of some exits said."""
    return ExitOutputs(
        outputs.exits[:count], outputs.logits[:count], outputs.targets, outputs.right[:count]
    )


def read_parts(folder: Path, chosen: Set) -> dict[str, Images]:
    """The images that heads learn from, that policies are chosen by, and that are held out."""
    train, end = folder / "train.parquet", chosen.train + chosen.choose
    return {
        "train": read_images(train, 0, chosen.train, chosen.pixels),
        "choose": read_images(train, chosen.train, end, chosen.pixels),
        "held": read_images(folder / "validation.parquet", 0, None, chosen.pixels),
    }


def space(pixels: int, blocks: Sequence[int], exit_head: str, last_head: str) -> ElasticSpace:
    """The transformer's paths, with heads after some blocks."""
    return search_spaces.create(  # type: ignore[no-any-return]
        "vit",
        model="vit_small_patch14_dinov2",
        arguments={"img_size": pixels, "num_classes": 10},
        exits=list(blocks),
        exit_head=exit_head,
        last_head=last_head,
    )


def best_last(trunk: Trunk, parts: dict[str, Images]) -> tuple[str, dict[str, float], nn.Module]:
    """The kind of head that is best after the last block, what all have, and the best one."""
    block = trunk.blocks[-1]
    heads = {kind: trunk.head(kind, block, parts["train"].labels) for kind in OWN_HEADS}
    accuracy = {}
    for kind, head in heads.items():
        right = trunk.logits("choose", head, block).argmax(1) == parts["choose"].labels
        accuracy[kind] = float(right.double().mean())
    best = max(accuracy, key=lambda kind: accuracy[kind])
    return best, accuracy, heads[best]


def with_heads(
    pixels: int, kind: str, last_kind: str, weights: Path, heads: dict[int, nn.Module]
) -> ElasticModel:
    """The model with its trunk's weights and these heads."""
    model = space(pixels, list(heads), kind, last_kind).build(str(weights))
    for block, head in heads.items():
        model.units[f"exits_{block}"].head.load_state_dict(head.state_dict())
    return model


def timed(
    model: ElasticModel, point: DynamicPoint, batches: Sequence[Tensor], rounds: int
) -> dict[str, Any]:
    """All ways over held-out images in batches, taking turns; after a warm-up."""
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    steps = steps_with_exits(model, point.path, point.policy.exits[:-1])
    rule = by_policy(point.policy)
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
    count = sum(map(len, batches))
    return {
        "batch": len(batches[0]),
        "speedup": median([a / b for a, b in zip(full_s, early_s, strict=True)]),
        "speedup_refilled": median([a / b for a, b in zip(full_s, refilled_s, strict=True)]),
        "full_ms_an_image": 1e3 * median(full_s) / count,
        "early_ms_an_image": 1e3 * median(early_s) / count,
    }


def refilled(steps: Sequence[Step], batches: Sequence[Tensor], rule: Rule) -> Tensor:
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
