"""Agreement of the space ofa_resnet50 with the official Once-For-All code.

    git clone https://github.com/mit-han-lab/once-for-all; pip install gdown
    python benchmarks/ofa_official.py --official once-for-all [--predictor FILE] [--paths 500]

Random paths are set in both; the same random weights are loaded into both. MACs must be equal, the
published predictor's accuracies within 1e-6, outputs within 1e-4. Exits with 1 where they are not.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from environment import save
from torch import nn

from paretopath.cost import Costs, CostTable, LayerCostModel
from paretopath.elastic import ElasticModel
from paretopath.evaluation.predictor import AccuracyPredictor
from paretopath.paths import ExecutionPath, IndexMatrix
from paretopath.tracing import Layer
from paretopath.weights.known import fetch_checkpoint
from search_spaces.ofa_resnet import WIDTHS, OfaResNet50Space
from search_spaces.ofa_resnet_units import BASE_DEPTHS, EXPANDS, EXTRA_DEPTHS

MAX_ACCURACY_DIFFERENCE = 1e-6
MAX_OUTPUT_DIFFERENCE = 1e-4
Setting = dict[str, Any]


class MacsAlone(LayerCostModel):
    """The table counts macs by itself; nothing else is asked of it here."""

    hardware = "none"

    def price(self, layers: Sequence[Layer]) -> Costs:
        """Nothing was measured."""
        unknown = np.full(len(layers), np.nan)
        return Costs(unknown, unknown, unknown)


def official_setting(path: ExecutionPath) -> Setting:
    """A path as the official code writes it; it wants a ratio for absent blocks too."""
    widths = ["stem.mid_width", "stem.width", *(f"stages.{s}.width" for s in range(4))]
    ratios = [
        f"stages.{stage}.blocks.{i}.expand"
        for stage, base in enumerate(BASE_DEPTHS)
        for i in range(base + max(EXTRA_DEPTHS))
    ]
    return {
        "d": [path["stem.depth"], *(path[f"stages.{s}.depth"] for s in range(4))],
        "e": [path.get(name, EXPANDS[-1]) for name in ratios],
        "w": [WIDTHS.index(path[name]) for name in widths],  # type: ignore[arg-type]
        "image_size": path["image_size"],
    }


def random_supernet() -> nn.Module:
    """The official supernet with weights and statistics that keep activations near one."""
    networks = import_module("ofa.imagenet_classification.elastic_nn.networks")
    net: nn.Module = networks.OFAResNets(
        depth_list=list(EXTRA_DEPTHS),
        expand_ratio_list=list(EXPANDS),
        width_mult_list=list(WIDTHS),
    )
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if tensor.dim() > 1:
                tensor.normal_(std=tensor[0].numel() ** -0.5)
            elif name.endswith(("running_var", "bn.bn.weight")):
                tensor.uniform_(0.5, 1.5)
            elif tensor.is_floating_point():
                tensor.normal_(std=0.1)
    return net.eval()


def same_weights(net: nn.Module, space: OfaResNet50Space) -> ElasticModel:
    """Our model, from a file of the official one's weights."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "supernet.pth"
        torch.save({"state_dict": net.state_dict()}, file)
        return space.build(checkpoint=str(file))


def other_macs(
    net: nn.Module, space: OfaResNet50Space, matrix: IndexMatrix, settings: Sequence[Setting]
) -> int:
    """On how many paths the MACs differ."""
    counter = import_module("ofa.nas.efficiency_predictor").ResNet50FLOPsModel(net)
    theirs = [round(counter.get_efficiency(setting) * 1e6) for setting in settings]
    ours = CostTable(space, MacsAlone()).encoded(matrix).macs
    return int((ours != np.array(theirs)).sum())


def accuracy_difference(
    space: OfaResNet50Space, matrix: IndexMatrix, settings: Sequence[Setting], predictor: Path
) -> float:
    """The largest difference of predicted accuracies."""
    official = import_module("ofa.nas.accuracy_predictor")
    encoder = official.ResNetArchEncoder(image_size_list=list(space["image_size"].values))
    reference = official.AccuracyPredictor(encoder, checkpoint_path=str(predictor), device="cpu")
    with torch.inference_mode():
        theirs = reference.predict_acc(settings).numpy()
    ours = AccuracyPredictor.load(predictor)(space.encode_for_predictor(matrix))
    return float(np.abs(ours - theirs).max())


@torch.inference_mode()
def output_difference(
    net: Any, model: ElasticModel, paths: Sequence[ExecutionPath], settings: Sequence[Setting]
) -> tuple[float, float]:
    """The largest difference of outputs, and their largest standard deviation over classes."""
    difference = deviation = 0.0
    space = model.space
    assert isinstance(space, OfaResNet50Space)
    for path, setting in zip(paths, settings, strict=True):
        image = torch.randn(1, *space.input_shape)
        with model.active(path):
            ours = model(image)
        net.set_active_subnet(**setting)
        size = (setting["image_size"],) * 2
        theirs = net(F.interpolate(image, size, mode="bilinear", antialias=True))
        difference = max(difference, (ours - theirs).abs().max().item())
        deviation = max(deviation, theirs.std().item())
    return difference, deviation


def misread_configurations(
    net: Any, space: OfaResNet50Space, paths: Sequence[ExecutionPath], settings: Sequence[Setting]
) -> int:
    """How many paths are not read back from the configuration that the official code writes."""
    misread = 0
    for path, setting in zip(paths, settings, strict=True):
        net.set_active_subnet(**setting)
        written = json.loads(json.dumps(net.get_active_subnet(preserve_weight=False).config))
        misread += space.parse(written | {"image_size": setting["image_size"]}) != path
    return misread


def main() -> int:
    """Runs the comparison, writes and prints it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--official", type=Path, help="clone of once-for-all; else installed")
    parser.add_argument("--predictor", type=Path, help="the published file; else downloaded")
    parser.add_argument("--paths", type=int, default=500)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    if arguments.official:
        sys.path.insert(0, str(arguments.official))
    predictor = arguments.predictor or fetch_checkpoint("ofa_resnet50_acc_predictor")
    torch.manual_seed(arguments.seed)
    start = time.perf_counter()
    space = OfaResNet50Space()
    matrix = space.sample_encoded(np.random.default_rng(arguments.seed), arguments.paths)
    paths = space.decode(matrix)
    settings = [official_setting(path) for path in paths]
    net = random_supernet()
    model = same_weights(net, space)
    outputs, deviation = output_difference(net, model, paths, settings)
    result = {
        "paths": arguments.paths,
        "seed": arguments.seed,
        "paths_with_other_macs": other_macs(net, space, matrix, settings),
        "misread_configurations": misread_configurations(net, space, paths, settings),
        "largest_accuracy_difference": accuracy_difference(space, matrix, settings, predictor),
        "largest_output_difference": outputs,
        "largest_output_deviation": deviation,
        "seconds": round(time.perf_counter() - start, 1),
    }
    save("ofa_official", result)
    print(result)
    agree = (
        result["paths_with_other_macs"] == 0
        and result["misread_configurations"] == 0
        and result["largest_accuracy_difference"] <= MAX_ACCURACY_DIFFERENCE
        and result["largest_output_difference"] <= MAX_OUTPUT_DIFFERENCE
    )
    return 0 if agree else 1


if __name__ == "__main__":
    raise SystemExit(main())
