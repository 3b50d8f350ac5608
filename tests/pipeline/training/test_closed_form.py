"""Exits in closed form are what ridge regression makes of the frozen rest."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

import search_spaces
from paretopath.elastic import ElasticModel
from paretopath.elastic.exits import exit_paths
from paretopath.errors import InvalidValueError
from paretopath.training.closed_form import solve_exits
from paretopath.weights.new import mark_new, new_parameters
from tests.search_spaces.test_vit import ARGUMENTS

Batches = list[tuple[Tensor, Tensor]]


def model_of(exit_head: str) -> ElasticModel:
    torch.manual_seed(0)
    space = search_spaces.create("vit", arguments=ARGUMENTS, exits=[1, 2, 3], exit_head=exit_head)
    model = space.build()
    for name in ("exits_1", "exits_2"):
        mark_new(model.units[name], "no exits")
    return model


@pytest.fixture(scope="module")
def batches() -> Batches:
    """Images whose classes can be told by their brightness and where it is."""
    torch.manual_seed(1)
    patterns = torch.randn(10, 1, 8, 8)
    labels = torch.randint(0, 10, (600,))
    images = patterns[labels] + 0.7 * torch.randn(600, 1, 8, 8)
    return list(zip(images.split(100), labels.split(100), strict=True))


@pytest.mark.parametrize("exit_head", ["reuse", "linear"])
def test_classifiers_are_solved_and_nothing_else_moves(exit_head: str, batches: Batches) -> None:
    model = model_of(exit_head)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    solve_exits(model, exit_paths(model), new_parameters(model), batches)
    last = "classifier" if exit_head == "linear" else "vit.head"
    moved = {n for n, t in model.state_dict().items() if not torch.equal(t, before[n])}
    expected = {f"units.exits_{e}.head.{last}.{p}" for e in (1, 2) for p in ("weight", "bias")}
    assert moved == expected
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    for value in (1, 2):
        with torch.inference_mode(), model.active({"exit": value}):
            logits = model(images)
        assert (logits.argmax(-1) == labels).double().mean() > 0.7
        loss = torch.nn.functional.cross_entropy(logits, labels)
        assert loss < 1.5  # the scale of the logits is that of probabilities


def test_answers_are_those_of_scikit_learns_ridge(batches: Batches) -> None:
    model = model_of("linear")
    exit_ = model.units["exits_1"]
    images, labels = (torch.cat(parts) for parts in zip(*batches, strict=True))
    with torch.inference_mode():
        tokens = model.units["blocks_0"](
            model.units["stem"](images, {}),
            {"blocks.0.heads": 4, "blocks.0.mlp_ratio": 1.0},
        )
        features = exit_.head.pool(tokens).double().numpy()
    solve_exits(model, exit_paths(model), new_parameters(model), batches)
    with torch.inference_mode():
        logits = exit_(tokens, {}).double().numpy()
    variance = features.var(axis=0).mean() * len(features)
    peers = [
        Ridge(alpha=10.0**power * variance).fit(features, np.eye(10)[labels.numpy()])
        for power in range(-6, 2)
    ]
    alike = [
        np.corrcoef(peer.predict(features).ravel(), (logits - logits.mean(1)[:, None]).ravel())[
            0, 1
        ]
        for peer in peers
    ]
    assert max(alike) > 0.9999


def test_other_heads_and_targets_are_refused(batches: Batches) -> None:
    model = model_of("mlp")
    with pytest.raises(InvalidValueError, match=r"but exits.1 has head.hidden, head.classifier"):
        solve_exits(model, exit_paths(model), new_parameters(model), batches)
    model = model_of("linear")
    with pytest.raises(InvalidValueError, match=r"but units.stem\S+ is new too"):
        solve_exits(
            model,
            exit_paths(model),
            [*new_parameters(model), "units.stem.vit.pos_embed"],
            batches,
        )
    maps = [(images, torch.zeros(len(images), 8, 8)) for images, _ in batches]
    with pytest.raises(InvalidValueError, match="needs one label an image"):
        solve_exits(model, exit_paths(model), new_parameters(model), maps)
