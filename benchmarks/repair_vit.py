"""Narrow and shortened paths of a pretrained ViT-S/14 on CIFAR-10, without labels or gradients:
repaired, against what was done before.

    python benchmarks/repair_vit.py --weights FILE --data FOLDER
        --work DIR [--space vit] [--classifier 20000] [--images 512] [--report 2500] [--rounds 3]

FILE: a state dict for timm's vit_small_patch14_dinov2, run at 98 px. FOLDER: train.parquet and
test_half.parquet with the columns image and label. A logistic classifier of the normalised class
token and mean of the patches (the space's head ``linear``) is fitted on training images, with
labels; paths are re-solved on others, without. DIR keeps the classifier. Accuracies are of the
first images of test_half, forward passes in bfloat16 where this CPU has it; nothing is chosen on
them. With the space blocks the same model is taken apart by the space for any model.
"""

import argparse
import copy
import json
import time
from collections import OrderedDict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import datasets
import timm
import torch
import torchvision.transforms.v2 as transforms
from environment import fast_forward, median, save
from timm.models.vision_transformer import checkpoint_filter_fn
from torch import Tensor, nn

from paretopath import create_space
from paretopath.calibration.moments import calibrate
from paretopath.elastic import ElasticModel
from paretopath.elastic.compensation import compensate
from paretopath.elastic.repair import Repair
from paretopath.paths import ExecutionPath, Value
from paretopath.weights.files import load_reference, read_state, write_state
from search_spaces.exit_heads import LinearHead

MODEL, BLOCKS, HEADS, PIXELS = "vit_small_patch14_dinov2", 12, 6, 98
OPTIONS = {"img_size": PIXELS, "num_classes": 10}
MLPS = [0.125, 0.25, 0.5, 1.0]
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
DECAYS = (1e-4, 1e-3, 1e-2, 1e-1)  # of the classifier


def mlps(share: float) -> dict[str, Value]:
    """Every MLP at one share of its hidden channels."""
    return {f"blocks.{i}.mlp_ratio": share for i in range(BLOCKS)}


def without(*skipped: int) -> dict[str, Value]:
    """Some blocks skipped."""
    return {f"blocks.{i}.run": False for i in skipped}


KINDS = {"mlp_ratio": "keep_ratio", "heads": "head_ratio", "run": "run"}
"""What the space blocks calls what the space vit decides."""

ROWS: Mapping[str, dict[str, Value]] = {
    "MLPs at a half": mlps(0.5),
    "MLPs at a quarter": mlps(0.25),
    "MLPs at an eighth": mlps(0.125),
    "block 5 skipped": without(5),
    "blocks 4 and 7 skipped": without(4, 7),
    "MLPs at a half, 4 and 7 skipped": mlps(0.5) | without(4, 7),
    "heads halved": {f"blocks.{i}.heads": HEADS // 2 for i in range(BLOCKS)},
}


def read(file: Path, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Images (count, 3, PIXELS, PIXELS), normalised, and labels (count,)."""
    table = datasets.load_dataset("parquet", data_files=str(file))["train"]
    prepare = transforms.Compose(
        [
            transforms.PILToTensor(),
            transforms.Resize(PIXELS, transforms.InterpolationMode.BICUBIC, antialias=True),
            transforms.ToDtype(torch.float32, scale=True),
            transforms.Normalize(*IMAGENET),
        ]
    )
    chosen = table.select(range(start, start + count))
    images = torch.stack([prepare(row["image"].convert("RGB")) for row in chosen])
    return images, torch.tensor(chosen["label"])


@torch.inference_mode()
def run(module: nn.Module, images: Tensor) -> Tensor:
    """Outputs of a model, a batch after the other."""
    with fast_forward():
        return torch.cat([module(batch).float() for batch in images.split(125)])


def fit_classifier(features: Tensor, labels: Tensor) -> nn.Linear:
    """Logistic regression of features (n, K), its decay chosen on a fifth of them."""
    known = len(features) * 4 // 5

    def held_out(decay: float) -> float:
        logits = logistic(features[:known], labels[:known], decay)(features[known:])
        return float((logits.argmax(1) == labels[known:]).double().mean())

    return logistic(features, labels, max(DECAYS, key=held_out))


def logistic(features: Tensor, labels: Tensor, decay: float) -> nn.Linear:
    """Logistic regression of standardised features (n, K), as a linear layer of the features."""
    mean, std = features.mean(0), features.std(0)
    linear = nn.Linear(features.shape[1], int(labels.max()) + 1)
    optimizer = torch.optim.LBFGS(
        linear.parameters(), max_iter=200, line_search_fn="strong_wolfe", tolerance_change=1e-7
    )

    def loss() -> Tensor:
        optimizer.zero_grad()
        logits = linear((features - mean) / std)
        lost = nn.functional.cross_entropy(logits, labels) + decay * linear.weight.square().sum()
        lost.backward()
        return lost

    optimizer.step(loss)
    with torch.no_grad():
        linear.weight /= std
        linear.bias -= linear.weight @ mean
    return linear


def kept_classifier(arguments: argparse.Namespace) -> Path:
    """Where it is."""
    return Path(arguments.work) / "classifier.safetensors"


def build(arguments: argparse.Namespace) -> ElasticModel:
    """The elastic model with a classifier fitted for it."""
    space = create_space(
        "vit",
        model=MODEL,
        arguments=OPTIONS,
        exits=[BLOCKS],
        last_head="linear",
        heads=[HEADS // 2, HEADS],
        mlp_ratios=MLPS,
    )
    torch.manual_seed(0)
    model = space.build(arguments.weights)
    head = model.chain[-1].get_submodule("head.classifier")
    assert isinstance(head, nn.Linear)
    fitted = kept_classifier(arguments)
    if not fitted.is_file():
        images, labels = read(Path(arguments.data) / "train.parquet", 0, arguments.classifier)
        features: list[Tensor] = []
        hook = head.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0].float()))
        run(model, images)
        hook.remove()
        linear = fit_classifier(torch.cat(features).clone(), labels)
        fitted.parent.mkdir(parents=True, exist_ok=True)
        write_state(fitted, {name: t.detach() for name, t in linear.state_dict().items()})
    head.load_state_dict(read_state(fitted))
    return model.eval()


def any_model(**arguments: Any) -> nn.Module:
    """The same transformer as somebody's own model."""
    vit = timm.create_model(MODEL, global_pool="", **arguments)
    head = LinearHead(vit)
    vit.norm = vit.head = nn.Identity()
    return nn.Sequential(OrderedDict(vit=vit, head=head)).eval()


def as_blocks(arguments: argparse.Namespace) -> ElasticModel:
    """The elastic model of the space for any model; its classifier has been kept."""
    space = create_space(
        "blocks", model="repair_vit:any_model", arguments=OPTIONS, keep_ratios=MLPS
    )
    model: Any = space.reference()
    adapt = partial(checkpoint_filter_fn, model=model.vit)
    load_reference(model.vit, arguments.weights, adapt=adapt, ignored=["norm."])
    model.head.classifier.load_state_dict(read_state(kept_classifier(arguments)))
    return space.around(space.units_of(model)).eval()


def choices_of(space: str, row: str) -> dict[str, Value]:
    """What a row chooses, as the space calls it."""
    if space == "vit":
        return ROWS[row]
    found = {}
    for name, value in ROWS[row].items():
        block, _, kind = name.rpartition(".")
        share = value / HEADS if kind == "heads" else value
        found[f"vit.{block}.{KINDS[kind]}"] = share
    return found


def timed(
    model: ElasticModel, images: Tensor, path: ExecutionPath, rounds: int
) -> dict[str, float]:
    """Processor time of repairing one path against one pass of it and one of the full model over
    the calibration images.
    """
    rows: list[dict[str, float]] = []
    repair = Repair(model, images)
    repair([model.space.full])  # looks at the full model, once for all paths
    for _ in range(rounds):
        begin = time.process_time()
        repair([path])
        done = time.process_time()
        with torch.inference_mode():
            for walked in (path, model.space.full):
                with model.active(walked):
                    model(images)
        rows.append({"repair_s": done - begin, "passes_s": time.process_time() - done})
    found = {name: median([row[name] for row in rows]) for name in rows[0]}
    return {**found, "ratio": found["repair_s"] / found["passes_s"]}


def main() -> None:
    """Prints each row as it is found, and writes all of them."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="a state dict for the timm model")
    parser.add_argument("--data", required=True, help="a folder with the parquet files")
    parser.add_argument("--work", required=True, help="keeps the classifier")
    parser.add_argument("--space", choices=("vit", "blocks"), default="vit")
    parser.add_argument("--classifier", type=int, default=20000, help="images that it is fitted on")
    parser.add_argument("--images", type=int, default=512, help="calibration images")
    parser.add_argument("--report", type=int, default=2500, help="images of test_half")
    parser.add_argument("--rounds", type=int, default=3, help="of timing; 0: none")
    arguments = parser.parse_args()
    folder = Path(arguments.data)
    model = build(arguments)
    if arguments.space == "blocks":
        model = as_blocks(arguments)
    images, _ = read(folder / "train.parquet", arguments.classifier, arguments.images)
    test, labels = read(folder / "test_half.parquet", 0, arguments.report)

    def accuracy(module: nn.Module) -> float:
        return float((run(module, test).argmax(1) == labels).double().mean())

    calibrate(model, [(batch, None) for batch in images.split(128)])
    sliced = copy.deepcopy(model)
    for layer in sliced.modules():
        if "compensation" in layer._modules:
            compensate(layer, None)
    repair = Repair(model, images)
    full = accuracy(model)
    error = (full * (1 - full) / len(labels)) ** 0.5
    print(f"full path: {100 * full:.2f} ± {100 * error:.2f} on {len(labels)} images", flush=True)
    rows: dict[str, dict[str, Any]] = {}
    for name in ROWS:
        choices = choices_of(arguments.space, name)
        path = model.space.canonical({**model.space.full, **choices})
        forms = {
            "slice": sliced.extract(path),
            "compensated": model.extract(path),
            "repaired": model.extract(path, repair([path])[path]),
        }
        rows[name] = {form: accuracy(static) for form, static in forms.items()}
        print(name, *(f"{form} {100 * a:.1f}" for form, a in rows[name].items()), flush=True)
        if arguments.rounds and name in ("MLPs at a half", "blocks 4 and 7 skipped"):
            rows[name]["time"] = timed(model, images, path, arguments.rounds)
            print(json.dumps(rows[name]["time"]), flush=True)
    full_row = {"accuracy": full, "standard_error": error}
    counts = {"classifier_images": arguments.classifier, "calibration_images": arguments.images}
    name = "repair_vit" if arguments.space == "vit" else "repair_vit_blocks"
    save(name, {"images": len(labels), **counts, "full": full_row, "rows": rows})


if __name__ == "__main__":
    main()
