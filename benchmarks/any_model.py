"""Models taken as they are, by the space ``blocks``, against Torch-Pruning: before training, and
after the same few epochs of it.

    python benchmarks/any_model.py MODEL --weights FILE --data FOLDER --work DIR
        [--steps before search after] [--widths 0.75 0.5 0.375] [--images 512] [--trials 150]
        [--search-images 1000] [--search-calibration 256]
        [--train-images 10000] [--epochs 3] [--lr 0.02] [--rows NAME ...]

MODEL: ``resnet56`` (FILE: the state dict of akamaster's pytorch_resnet_cifar10; FOLDER:
train.parquet and test_half.parquet) or ``efficientnet_lite0`` (FILE: timm's
``tf_efficientnet_lite0``; FOLDER: train.parquet and validation.parquet, fine-tuned first). Columns:
image and label.

Ours: all widths alike, sliced with batch-norm statistics measured, and repaired; and the best path
of a search that costs no more. The peers prune to the same MACs, or the next more, by BasePruner's
criteria, local and global, and get statistics from the same calibration images. Taylor importance
sees their labels, nothing of ours does. Then each trains on the first images of train.parquet:
labels alone, SGD, the same order, augmentation and number of epochs for all; ours, searched, once
more with the trained full model as its teacher too, as retraining does it. All accuracies are of
the images in the other file, of which the search looks at the first. DIR keeps what has run.
"""

import argparse
import copy
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import datasets
import torch
import torch_pruning
from environment import fast_forward, save
from safetensors.torch import load_model as load_model_file
from safetensors.torch import save_model as save_model_file
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from paretopath import jobs
from paretopath.calibration.moments import draw
from paretopath.elastic.compensation import compensate
from paretopath.elastic.repair import Repair
from paretopath.evaluation.batch_norm import recalibrate
from paretopath.paths import ExecutionPath
from paretopath.recipe import Recipe
from paretopath.run import Run, assemble, load_model
from paretopath.tasks.classification.task import Classification
from search_spaces.blocks.space import BlocksSpace

STEPS = ("before", "search", "after")
CRITERIA: Mapping[str, Callable[[], Any]] = {
    "magnitude": lambda: torch_pruning.importance.GroupMagnitudeImportance(p=2),
    "batch-norm scale": torch_pruning.importance.BNScaleImportance,
    "Taylor": torch_pruning.importance.GroupTaylorImportance,
}
MOST_PRUNED = 0.9  # of a layer: a global ranking would empty some
TAUGHT = "taught by the full model"
EIGHTHS = [i / 8 for i in range(1, 9)]


@dataclass(frozen=True)
class Setup:
    """A model and its data.

    Attributes:
        options: of the space.
        scored: the file with the images that accuracies are of.
        normalised: mean and std.
        transforms: of the images that train.
        inside_only: whether the peers must leave the residual stream alone, as ours does: shortcuts
            that pad can't be pruned.
        train: how the model is trained before all; the published weights as they are if empty.
    """

    options: Mapping[str, Any]
    scored: str
    normalised: tuple[tuple[float, ...], tuple[float, ...]]
    transforms: Mapping[str, Any]
    inside_only: bool = False
    train: Mapping[str, Any] = field(default_factory=dict)


SETUPS: Mapping[str, Setup] = {
    "resnet56": Setup(
        {
            "model": "resnet_cifar:PlainResNet",
            "arguments": {"depth": 56},
            "input_shape": [3, 32, 32],
            "keep_ratios": EIGHTHS,
            "divisor": 1,
        },
        "test_half.parquet",
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        {"train": [{"name": "random_crop", "padding": 4}, {"name": "random_horizontal_flip"}]},
        inside_only=True,
    ),
    "efficientnet_lite0": Setup(
        {
            "model": "tf_efficientnet_lite0",
            "arguments": {"num_classes": 10},
            "input_shape": [3, 128, 128],
            "keep_ratios": EIGHTHS,
        },
        "validation.parquet",
        ((0.5,), (0.5,)),
        {
            "train": [
                {"name": "random_resized_crop", "scale": [0.5, 1.0]},
                {"name": "random_horizontal_flip"},
            ]
        },
        train={"parameters": "all", "epochs": 6, "warmup_epochs": 1, "lr": 5e-4},
    ),
}


def start(arguments: argparse.Namespace, *, search: bool = False) -> Run:
    """A run on the first images for training and, for a search, on the first to be scored."""
    setup, work = SETUPS[arguments.model], Path(arguments.work).absolute()
    folder = Path(arguments.data).absolute()
    scored = folder / setup.scored
    if search:
        scored = first(scored, arguments.search_images, work)
    data = {
        "source": "parquet",
        "data_files": {
            "train": str(first(folder / "train.parquet", arguments.train_images, work)),
            "validation": str(scored),
        },
        "mean": setup.normalised[0],
        "std": setup.normalised[1],
        "transforms": setup.transforms,
        "splits": {"train": "train", "validation": "validation", "test": "validation"},
        "batch_size": 128,
        "eval_batch_size": 250,
        "workers": 0,
    }
    images = arguments.search_calibration if search else arguments.images
    recipe = Recipe.model_validate(
        {
            "name": "any_model",
            "space": {"name": "blocks", "options": setup.options},
            "weights": str(Path(arguments.weights).absolute()),
            "data": data,
            "calibration": {"images": images},
            "accuracy": {"precision": "auto" if search else "float32"},
            "train": {**setup.train, "precision": "bf16-mixed"},
            "search": {"trials": arguments.trials, "cost": "macs"},
            "tracking": {"mode": "disabled"},
        }
    )
    return Run.start(work / ("search" if search else "widths"), recipe, device="cpu")


def first(file: Path, count: int, work: Path) -> Path:
    """A file with the first images of another one; that one if it has no more."""
    table = datasets.load_dataset("parquet", data_files=str(file))["train"]
    if len(table) <= count:
        return file
    work.mkdir(parents=True, exist_ok=True)
    chosen = work / f"{file.stem}_{count}.parquet"
    if not chosen.is_file():
        table.select(range(count)).to_parquet(chosen)
    return chosen


class Bench:
    """What all rows share.

    Attributes:
        space, model: ours, ordered and compensated.
        original: the model itself, with the same weights.
        batches: the calibration images, with their labels.
        macs: of the full path.
    """

    def __init__(self, arguments: argparse.Namespace) -> None:
        run = start(arguments)
        self.run, self.arguments = run, arguments
        parts = assemble(run)
        jobs.prepare_weights(run, parts)
        assert isinstance(parts.space, BlocksSpace)
        self.space, self.images = parts.space, parts.images
        self.model = load_model(self.space, run.weights_file, run).eval()
        self.original = self.space.reference()
        self.original.load_state_dict(self.space.original_state(self.model))
        settings = run.recipe.calibration
        loader = self.images.data.loader("calibration", shuffle_seed=settings.seed)
        self.batches = list(draw(loader, settings.images))
        self.pixels = torch.cat([images for images, _ in self.batches])
        self.macs = self.count_macs(self.original)
        self.repair = Repair(self.model, self.pixels, measure=True)

    def count_macs(self, module: nn.Module) -> float:
        """Multiply-accumulates of one image, by torch's counter."""
        with FlopCounterMode(display=False) as counter, torch.inference_mode():
            module.eval()(torch.zeros(1, *self.space.input_shape))
        return counter.get_total_flops() / 2

    def accuracy(self, module: nn.Module) -> float:
        return self.images.score(module.eval(), "validation").value

    def alike(self, width: float) -> ExecutionPath:
        """Every unit at the share of its channels that is nearest to one."""
        choices: dict[str, Any] = dict(self.space.full)
        for decision in self.space.decisions:
            if decision.name.endswith(".keep_ratio"):
                nearest = min(decision.values, key=lambda value: abs(float(value) - width))
                choices[decision.name] = nearest
        return self.space.canonical(choices)


def sliced(bench: Bench, path: ExecutionPath) -> nn.Module:
    """A path as slicing leaves it, with batch-norm statistics of its own."""
    plain = copy.deepcopy(bench.model)
    for layer in plain.modules():
        if "compensation" in layer._modules:
            compensate(layer, None)
    return plain.extract(path, recalibrate(plain, path, bench.batches))


def repaired(bench: Bench, path: ExecutionPath) -> nn.Module:
    """A path re-solved in sequence on the calibration images."""
    return bench.model.extract(path, bench.repair([path])[path])


def pruned(bench: Bench, criterion: str, ratio: float, is_global: bool) -> nn.Module:
    """A copy of the original without a share of its channels, by a peer's criterion."""
    plain = copy.deepcopy(bench.original)
    ignored = [plain.get_submodule(name) for name in bench.space.classifiers]
    if SETUPS[bench.arguments.model].inside_only:
        makers = {name for unit in bench.space.plan for g in unit.groups for name in g.makers}
        layers = dict(plain.named_modules())
        ignored = [
            module
            for name, module in layers.items()
            if isinstance(module, nn.Conv2d | nn.Linear) and name not in makers
        ]
    if criterion == "Taylor":
        for images, labels in bench.batches:
            nn.functional.cross_entropy(plain(images), labels).backward()
    torch_pruning.pruner.BasePruner(
        plain,
        torch.zeros(1, *bench.space.input_shape),
        importance=CRITERIA[criterion](),
        global_pruning=is_global,
        pruning_ratio=ratio,
        max_pruning_ratio=MOST_PRUNED,
        ignored_layers=ignored,
    ).step()
    plain.zero_grad()
    return plain


def at_macs(bench: Bench, criterion: str, saved: float, is_global: bool) -> nn.Module:
    """A peer's model of as many MACs, or the next one with more, with measured statistics."""
    low, high, best = 0.0, 1.0, bench.original
    for _ in range(7):
        ratio = (low + high) / 2
        found = pruned(bench, criterion, ratio, is_global)
        if bench.count_macs(found) >= (1 - saved) * bench.macs:
            low, best = ratio, found
        else:
            high = ratio
    return with_statistics(best, bench.pixels)


@torch.no_grad()
def with_statistics(module: nn.Module, images: Tensor) -> nn.Module:
    """A copy whose batch-norm statistics are those of the images, taken layer by layer."""
    measured = copy.deepcopy(module).eval()
    for norm in measured.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.train()
            norm.reset_running_stats()
            norm.momentum = None  # the mean over batches
    for batch in images.split(128):
        measured(batch)
    return measured.eval()


def searched(bench: Bench, saved: float) -> nn.Module:
    """The best path of a search that costs no more, repaired on as many images as the others."""
    run = start(bench.arguments, search=True)
    if not run.front_file.is_file():
        if not run.weights_file.is_file():
            run.weights_file.write_bytes(bench.run.weights_file.read_bytes())
        jobs.prepare_weights(run)
        jobs.search_run(run, on_progress=lambda now: print("trials", now.finished, flush=True))
    points = [p for p in run.front().points if p.macs <= (1 - saved) * bench.macs + 1]
    path = bench.space.canonical(max(points, key=lambda point: point.accuracy).path)
    return repaired(bench, path)


def rows(bench: Bench, width: float, steps: list[str]) -> Iterator[tuple[str, Any]]:
    """Names of what is compared at the MACs of one width, and what makes each."""
    path = bench.alike(width)
    yield "ours: all widths alike, sliced", lambda: sliced(bench, path)
    yield "ours: all widths alike, repaired", lambda: repaired(bench, path)
    saved = 1 - bench.count_macs(bench.model.extract(path)) / bench.macs
    if "search" in steps:
        yield "ours: searched, repaired", lambda: searched(bench, saved)
        if "after" in steps:
            yield f"ours: searched, repaired, {TAUGHT}", lambda: searched(bench, saved)
    for criterion in CRITERIA:
        for is_global in (False, True):
            name = f"Torch-Pruning: {criterion}, {'global' if is_global else 'local'}"
            yield name, lambda c=criterion, g=is_global: at_macs(bench, c, saved, g)


def full_trained(bench: Bench) -> nn.Module:
    """The full model after the same training, kept."""
    file = Path(bench.arguments.work) / "full_trained.safetensors"
    full = copy.deepcopy(bench.original)
    if file.is_file():
        load_model_file(full, file)
    else:
        full = trained(bench, full)
        save_model_file(full, str(file))
    return full.eval()


def trained(bench: Bench, module: nn.Module, teacher: nn.Module | None = None) -> nn.Module:
    """The model after some epochs of SGD (Nesterov) with a cosine, on labels, and on what a teacher
    says of the same images if there is one.
    """
    arguments, task = bench.arguments, Classification()
    module.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(
        module.parameters(), lr=arguments.lr, momentum=0.9, weight_decay=5e-4, nesterov=True
    )
    per_epoch = -(-len(bench.images.data.train) // 128)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.lr, total_steps=per_epoch * arguments.epochs, pct_start=0.1
    )
    for epoch in range(arguments.epochs):
        torch.manual_seed(epoch)  # of the augmentation
        for images, labels in bench.images.data.loader("train", shuffle_seed=epoch):
            images = images.to(memory_format=torch.channels_last)
            with fast_forward():
                logits = module(images)
                told = teacher_says(teacher, images)
            if told is None:
                loss = task.loss(logits.float(), labels)
            else:
                loss = task.distillation_loss(logits.float(), told, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return module.eval()


def teacher_says(teacher: nn.Module | None, images: Tensor) -> Tensor | None:
    """(B, classes) a teacher's logits."""
    if teacher is None:
        return None
    with torch.no_grad():
        logits: Tensor = teacher(images)
    return logits.float()


def main() -> None:
    """Prints each row as it is found, and writes all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", choices=SETUPS)
    parser.add_argument("--weights", required=True, help="the published weights")
    parser.add_argument("--data", required=True, help="a folder with the parquet files")
    parser.add_argument("--work", required=True, help="keeps what has run")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--widths", nargs="+", type=float, default=[0.75, 0.5, 0.375])
    parser.add_argument("--images", type=int, default=512, help="calibration images")
    parser.add_argument("--trials", type=int, default=150)
    parser.add_argument("--search-images", type=int, default=1000, help="on which it searches")
    parser.add_argument("--search-calibration", type=int, default=256, help="images, meanwhile")
    parser.add_argument("--train-images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--lr", type=float, default=0.02, help="peak")
    parser.add_argument("--rows", nargs="+", default=[""], help="those with one of these in them")
    arguments = parser.parse_args()
    bench = Bench(arguments)
    kept = Path(arguments.work) / "result.json"
    result: dict[str, Any] = json.loads(kept.read_text()) if kept.is_file() else {}
    settings = {k: v for k, v in vars(arguments).items() if isinstance(v, int | float)}
    result |= {"model": arguments.model, "settings": settings, "macs": bench.macs}
    result["scored_images"] = len(bench.images.data.validation)

    def measure(row: dict[str, float], name: str, make: Callable[[], nn.Module]) -> None:
        wanted = {"before", "after"} & set(arguments.steps) - set(row)
        if not wanted:
            return
        module = make()
        row["macs_saved"] = 1 - bench.count_macs(module) / bench.macs
        if "before" in wanted:
            row["before"] = bench.accuracy(module)
        if "after" in wanted:
            if name == "full":
                row["after"] = bench.accuracy(full_trained(bench))
            else:
                teacher = full_trained(bench) if name.endswith(TAUGHT) else None
                row["after"] = bench.accuracy(trained(bench, copy.deepcopy(module), teacher))
        print(name, json.dumps(row), flush=True)
        kept.write_text(json.dumps(result))

    measure(result.setdefault("full", {}), "full", lambda: copy.deepcopy(bench.original))
    for width in arguments.widths:
        found = result.setdefault("widths", {}).setdefault(f"{width:g}", {})
        for name, make in rows(bench, width, arguments.steps):
            if any(wanted in name for wanted in arguments.rows):
                measure(found.setdefault(name, {}), f"{width:g} {name}", make)
    save(f"any_model_{arguments.model}", result)


if __name__ == "__main__":
    main()
