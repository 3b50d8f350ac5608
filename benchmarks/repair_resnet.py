"""Narrow paths of a published ResNet-56 on CIFAR-10, without labels or gradients: repaired, against
what was done before, and against Torch-Pruning in one shot.

    python benchmarks/repair_resnet.py --weights FILE --data FOLDER --work DIR
        [--images 512] [--trials 300] [--search-images 1000] [--search-calibration 256]
        [--steps widths peers time search]

FILE: the state dict of akamaster's pytorch_resnet_cifar10. FOLDER: train.parquet (calibration, its
labels unused) and test_half.parquet with the columns image and label; the published weights saw
every training image, so accuracies, and all that is chosen, are of the latter. Uniform widths: the
inner channels of every block, sliced, compensated layer by layer, and repaired. The peers prune the
same channels to the same MACs and get batch-norm statistics from the same images. The search looks
at a part of the images; its front is scored again on all. DIR keeps what has run.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import datasets
import torch
import torch_pruning
from environment import median, save
from resnet_cifar import PlainBlock, PlainResNet
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from paretopath import jobs
from paretopath.calibration.moments import draw
from paretopath.elastic import ElasticModel
from paretopath.elastic.compensation import compensate
from paretopath.elastic.own import PathTensors
from paretopath.elastic.repair import Repair
from paretopath.evaluation.batch_norm import recalibrate
from paretopath.evaluation.evaluator import Batch
from paretopath.paths import ExecutionPath
from paretopath.recipe import Recipe
from paretopath.run import Run, assemble, load_model
from paretopath.run.parts import Parts

WIDTHS = (0.75, 0.5, 0.375)
ALLOWED_LOSS = 0.03
PEERS: Mapping[str, tuple[Callable[[], Any], bool]] = {
    "magnitude, global": (lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2), True),
    "magnitude, local": (lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2), False),
    "batch-norm scale, global": (torch_pruning.importance.BNScaleImportance, True),
}
MOST_PRUNED = 0.9  # of a layer: a global ranking would empty some


def start(arguments: argparse.Namespace, *, images: int | None = None) -> Run:
    """A run whose validation and test images are those of test_half.parquet.

    Args:
        images: the first of them, for a search; all if None.
    """
    folder, work = Path(arguments.data).absolute(), Path(arguments.work).absolute()
    chosen = folder / "test_half.parquet"
    if images:
        work.mkdir(parents=True, exist_ok=True)
        table = datasets.load_dataset("parquet", data_files=str(chosen))["train"]
        chosen = work / f"first_{images}.parquet"
        table.select(range(images)).to_parquet(chosen)
    recipe = Recipe.model_validate(
        {
            "name": "repair_resnet",
            "space": {"name": "resnet_cifar:CifarResNetSpace", "options": {"depth": 56}},
            "weights": str(Path(arguments.weights).absolute()),
            "data": {
                "source": "parquet",
                "data_files": {
                    "train": str(folder / "train.parquet"),
                    "validation": str(chosen),
                },
                "mean": (0.485, 0.456, 0.406),
                "std": (0.229, 0.224, 0.225),
                "splits": {"train": "train", "validation": "validation", "test": "validation"},
                "eval_batch_size": 250,
            },
            "calibration": {"images": arguments.search_calibration if images else arguments.images},
            "accuracy": {"precision": "auto" if images else "float32"},
            "search": {
                "trials": arguments.trials,
                "cost": "macs",
                "paths": [uniform(width) for width in WIDTHS],
            },
            "tracking": {"mode": "disabled"},
        }
    )
    name = "search" if images else "widths"
    return Run.start(work / name, recipe, device="cpu")


def uniform(width: float) -> dict[str, float]:
    """Every block at one width."""
    return {f"blocks.{i}.width": width for i in range(27)}


class Bench:
    """What all rows share.

    Attributes:
        parts: of the recipe.
        model: ordered and compensated.
        batches: the calibration images.
        macs: of the full path.
    """

    def __init__(self, run: Run) -> None:
        self.parts: Parts = assemble(run)
        jobs.prepare_weights(run, self.parts)
        self.model = load_model(self.parts.space, run.weights_file, run).eval()
        settings = run.recipe.calibration
        loader = self.parts.images.data.loader("calibration", shuffle_seed=settings.seed)
        self.batches: Sequence[Batch] = list(draw(loader, settings.images))
        self.macs = count_macs(self.model.extract(self.parts.space.full))

    @property
    def images(self) -> Tensor:
        """All calibration images as one batch."""
        return torch.cat([images for images, _ in self.batches])

    def accuracy(self, module: nn.Module) -> float:
        """Of a plain model on all images of test_half."""
        return self.parts.images.score(module.eval(), "validation").value

    def row(self, path: ExecutionPath) -> dict[str, float]:
        """Accuracies of one path."""
        sliced = copy.deepcopy(self.model)
        for layer in sliced.modules():
            if "compensation" in layer._modules:
                compensate(layer, None)
        repaired = Repair(self.model, self.images, measure=True)([path])[path]
        forms: dict[str, tuple[ElasticModel, PathTensors | None]] = {
            "slice": (sliced, None),
            "slice, statistics": (sliced, recalibrate(sliced, path, self.batches)),
            "compensated": (self.model, None),
            "compensated, statistics": (self.model, recalibrate(self.model, path, self.batches)),
            "repaired": (self.model, repaired),
        }
        static = {name: model.extract(path, own) for name, (model, own) in forms.items()}
        row = {name: self.accuracy(module) for name, module in static.items()}
        return {"macs_saved": 1 - count_macs(static["repaired"]) / self.macs, **row}


def count_macs(module: nn.Module) -> float:
    """Multiply-accumulates of one image, by torch's counter."""
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.zeros(1, 3, 32, 32))
    return counter.get_total_flops() / 2


def pruned(net: PlainResNet, name: str, ratio: float) -> PlainResNet:
    """A copy without a share of the channels inside its blocks, by a peer's criterion."""
    importance, is_global = PEERS[name]
    plain = copy.deepcopy(net)
    inner = {block.conv1 for block in plain.blocks}
    others = [m for m in plain.modules() if isinstance(m, nn.Conv2d | nn.Linear) and m not in inner]
    pruner = torch_pruning.pruner.BasePruner(
        plain,
        torch.zeros(1, 3, 32, 32),
        importance=importance(),
        global_pruning=is_global,
        pruning_ratio=ratio,
        max_pruning_ratio=MOST_PRUNED,
        ignored_layers=others,
    )
    pruner.step()
    return plain


def at_macs(net: PlainResNet, name: str, macs: float) -> PlainResNet:
    """The peer's model of as many MACs, or the next one with more."""
    low, high, best = 0.0, MOST_PRUNED, net
    for _ in range(7):
        ratio = (low + high) / 2
        found = pruned(net, name, ratio)
        if count_macs(found) >= macs:
            low, best = ratio, found
        else:
            high = ratio
    return best


@torch.no_grad()
def with_statistics(module: nn.Module, images: Tensor) -> nn.Module:
    """A copy whose batch-norm statistics are those of the images, taken layer by layer."""
    measured = copy.deepcopy(module).train()
    for norm in measured.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.reset_running_stats()
            norm.momentum = None  # the mean over batches
    for batch in images.split(128):
        measured(batch)
    return measured.eval()


def peers(bench: Bench, net: PlainResNet, saved: float) -> dict[str, dict[str, float]]:
    """Accuracies of each peer at a share of MACs saved."""
    found = {}
    for name in PEERS:
        plain = at_macs(net, name, (1 - saved) * bench.macs)
        found[name] = {
            "macs_saved": 1 - count_macs(plain) / bench.macs,
            "pruned": bench.accuracy(plain),
            "pruned, statistics": bench.accuracy(with_statistics(plain, bench.images)),
        }
    return found


def plain_net(model: ElasticModel) -> PlainResNet:
    """The full path as the network of the paper."""
    static = model.extract(model.space.full).eval()
    net = PlainResNet(56).eval()
    net.conv1, net.bn1 = static.stem[0], static.stem[1]
    blocks = [block for block in static if isinstance(block, PlainBlock)]
    for stage in (1, 2, 3):
        setattr(net, f"layer{stage}", nn.Sequential(*blocks[9 * stage - 9 : 9 * stage]))
    net.linear = static.head[2]
    return net


def timed(bench: Bench, path: ExecutionPath, rounds: int = 5) -> dict[str, float]:
    """Processor time of repairing one path against a forward pass of it and one of the full model,
    over all calibration images; the full model's own pass counted in both.
    """
    images, full = bench.images, bench.parts.space.full
    rows: list[dict[str, float]] = []
    for _ in range(rounds):
        begin = time.process_time()
        repair = Repair(bench.model, images, measure=True)
        repair([full])  # looks at the full model, once for all paths
        looked = time.process_time()
        repair([path])
        done = time.process_time()
        with torch.inference_mode():
            for walked in (path, full):
                with bench.model.active(walked):
                    bench.model(images)
        end = time.process_time()
        rows.append({"look_s": looked - begin, "repair_s": done - looked, "passes_s": end - done})
    found = {name: median([row[name] for row in rows]) for name in rows[0]}
    return {**found, "ratio": found["repair_s"] / found["passes_s"]}


def searched(arguments: argparse.Namespace, bench: Bench, full: float) -> dict[str, Any]:
    """What a search saves at the allowed loss: its front, repaired on as many images as the widths
    are and scored on all of test_half, from the cheapest point on until one fits.

    Args:
        full: the full path's accuracy there.
    """
    run = start(arguments, images=arguments.search_images)
    jobs.prepare_weights(run)
    began = time.process_time()
    jobs.search_run(run, on_progress=lambda now: print("trials", now.finished, flush=True))
    spent = time.process_time() - began
    space, front = bench.parts.space, run.front()
    model = load_model(space, run.weights_file, run).eval()
    repair = Repair(model, bench.images, measure=True)
    points: list[dict[str, Any]] = []
    likely = [p for p in front.points if p.accuracy >= front.full.accuracy - 1.5 * ALLOWED_LOSS]
    for point in sorted(likely, key=lambda point: point.macs):
        path = space.canonical(point.path)
        accuracy = bench.accuracy(model.extract(path, repair([path])[path]))
        saved = 1 - point.macs / bench.macs
        points.append({"path": dict(path), "macs_saved": saved, "loss": full - accuracy})
        print(f"searched: {100 * saved:.1f} % of MACs saved, {100 * (full - accuracy):.2f} lost")
        if full - accuracy <= ALLOWED_LOSS:
            break
    return {"trials": arguments.trials, "seconds": spent, "points": points}


def main() -> None:
    """Prints each part as it is found, and writes all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="the published state dict")
    parser.add_argument("--data", required=True, help="a folder with the parquet files")
    parser.add_argument("--work", required=True, help="keeps what has run")
    parser.add_argument("--images", type=int, default=512, help="calibration images")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--search-images", type=int, default=1000, help="on which it searches")
    parser.add_argument("--search-calibration", type=int, default=256, help="images, meanwhile")
    steps = ("widths", "peers", "time", "search")
    parser.add_argument("--steps", nargs="+", choices=steps, default=steps)
    arguments = parser.parse_args()
    bench = Bench(start(arguments))
    space = bench.parts.space
    net = plain_net(bench.model)
    full = bench.accuracy(net)
    count = len(bench.parts.images.data.validation)
    error = (full * (1 - full) / count) ** 0.5
    print(f"full path: {100 * full:.2f} ± {100 * error:.2f} on {count} images", flush=True)
    kept = Path(arguments.work) / "result.json"
    result: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    result |= {
        "images": count,
        "calibration_images": arguments.images,
        "full": {"accuracy": full, "standard_error": error, "macs": bench.macs},
    }
    for width in WIDTHS:
        path = space.canonical(uniform(width))
        row = result.setdefault("widths", {}).setdefault(str(width), {})
        if "widths" in arguments.steps:
            row["ours"] = bench.row(path)
        if "peers" in arguments.steps:
            saved = 1 - count_macs(bench.model.extract(path)) / bench.macs
            row["torch_pruning"] = peers(bench, net, saved)
        if "time" in arguments.steps:
            row["time"] = timed(bench, path)
        print(width, json.dumps(row, indent=1), flush=True)
        kept.write_text(json.dumps(result))
    if "search" in arguments.steps:
        result["search"] = searched(arguments, bench, full)
        kept.write_text(json.dumps(result))
    save("repair_resnet", result)


if __name__ == "__main__":
    main()
