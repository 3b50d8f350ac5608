"""The accuracy predictor against the network that it stands for."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from paretopath.errors import CheckpointError
from paretopath.evaluation.predictor import AccuracyPredictor, PredictorEvaluator
from paretopath.tasks.task import Score
from search_spaces.ofa_resnet import OfaResNet50Space


def network(inputs: int = 82) -> nn.Sequential:
    """The published predictor's form, with random weights."""
    torch.manual_seed(0)
    hidden = [nn.Sequential(nn.Linear(n, 40), nn.ReLU()) for n in (inputs, 40, 40)]
    return nn.Sequential(*hidden, nn.Linear(40, 1, bias=False))


def saved(folder: Path, net: nn.Module, **extra: torch.Tensor) -> Path:
    state = {f"layers.{name}": tensor for name, tensor in net.state_dict().items()}
    torch.save({**state, **extra}, folder / "predictor.pth")
    return folder / "predictor.pth"


def test_it_gives_what_the_network_gives(tmp_path: Path) -> None:
    net = network()
    predictor = AccuracyPredictor.load(saved(tmp_path, net, base_acc=torch.tensor([0.7])))
    features = torch.rand(5000, 82)
    with torch.no_grad():
        expected = net(features).squeeze(1).numpy() + 0.7
    assert predictor.inputs == 82
    assert predictor(features.numpy()) == pytest.approx(expected, abs=1e-6)
    assert predictor(features.numpy()[:0]).shape == (0,)


def test_an_evaluator_scores_paths_without_images(tmp_path: Path) -> None:
    space = OfaResNet50Space()
    predictor = AccuracyPredictor.load(saved(tmp_path, network(), base_acc=torch.tensor([0.5])))
    paths = [space.full, space.smallest]
    values = predictor(space.encode_for_predictor(space.encode(paths)))
    expected = [Score(float(value), error=0.0, samples=0) for value in values]
    assert PredictorEvaluator(space, predictor)(paths) == expected


def test_files_that_hold_no_predictor_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="there is no weights file"):
        AccuracyPredictor.load(tmp_path / "absent.pth")
    with pytest.raises(CheckpointError, match="must hold the linear layers and the base_acc"):
        AccuracyPredictor.load(saved(tmp_path, network()))
    base = torch.tensor([0.5])
    with pytest.raises(CheckpointError, match="must hold the linear layers"):
        AccuracyPredictor.load(saved(tmp_path, nn.Conv2d(3, 3, 1), base_acc=base))
    with pytest.raises(CheckpointError, match=r"ends in one output, but .* shapes \[\(2, 8\)\]"):
        AccuracyPredictor.load(saved(tmp_path, nn.Linear(8, 2), base_acc=base))


@pytest.mark.devdata
def test_the_published_predictor_gives_its_published_figures() -> None:
    folder = Path(os.environ["PARETOPATH_DEV_DATA"])
    predictor = AccuracyPredictor.load(folder / "ofa" / "ofa_resnet50_acc_predictor.pth")
    space = OfaResNet50Space()
    rows = space.sample_encoded(np.random.default_rng(0), 1000)
    values = predictor(space.encode_for_predictor(rows))
    assert predictor.base == pytest.approx(0.805560827)
    assert values.min() > 0.74 and values.max() < 0.83
