"""Checkpoints as training scripts save them are read; what doesn't fit is named in one sentence."""

import argparse
import logging
import warnings
from collections.abc import Callable
from datetime import timedelta
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import search_spaces
from paretopath.errors import CheckpointError, UntrainedClassifier
from paretopath.weights.files import load_reference, read_state
from paretopath.weights.new import new_parameters

State = dict[str, Tensor]


def net(classes: int = 2) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4), nn.Linear(4, classes))


def saved(
    tmp_path: Path, wrap: Callable[[State], Any] = dict, classes: int = 2
) -> tuple[str, State]:
    """A file of random weights as ``wrap`` has them, and the weights."""
    state = {
        n: torch.rand_like(t.float()).to(t.dtype) for n, t in net(classes).state_dict().items()
    }
    torch.save(wrap(state), tmp_path / "weights.pth")
    return str(tmp_path / "weights.pth"), state


def prefixed(prefix: str) -> Callable[[State], State]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


@pytest.mark.parametrize(
    "wrap",
    [
        lambda s: {"state_dict": s, "epoch": 3, "best_prec1": np.float64(0.5)},
        lambda s: {"model": s, "args": argparse.Namespace(lr=0.1, output=Path("out"))},
        lambda s: {"net": s, "acc": 91.3},
        lambda s: {"teacher": prefixed("backbone.")(s), "student": {}},
        lambda s: {"ema": {"state_dict": s}},
        lambda s: {"state_dict": prefixed("model._orig_mod.")(s)},
        prefixed("module."),
        lambda s: {"state_dict": prefixed("net.encoder.")(s), "hyper_parameters": {"lr": 0.1}},
        lambda s: {n: t for n, t in s.items() if "num_batches_tracked" not in n},
    ],
)
def test_wrapped_weights_are_found(tmp_path: Path, wrap: Callable[[State], Any]) -> None:
    file, state = saved(tmp_path, wrap)
    model = net()
    load_reference(model, file)
    for name, tensor in state.items():
        if "num_batches_tracked" not in name:
            assert torch.equal(model.state_dict()[name], tensor), name


def test_averaged_weights_are_preferred_and_that_is_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, state = saved(
        tmp_path, lambda s: {"model": {n: 0 * t for n, t in s.items()}, "model_ema": s}
    )
    with caplog.at_level(logging.WARNING):
        assert torch.equal(read_state(file)["0.weight"], state["0.weight"])
    assert "model_ema is taken" in caplog.text and "FILE#model" in caplog.text
    model = net()
    load_reference(model, f"{file}#model")
    assert not model[0].weight.any()
    with pytest.raises(CheckpointError, match=r"no weights under 'model_em'.*'model_ema'"):
        load_reference(model, f"{file}#model_em")


@pytest.mark.parametrize("value", [Fraction(1, 2), timedelta(1)])
def test_objects_of_other_types_are_refused_without_bad_advice(tmp_path: Path, value: Any) -> None:
    file, _ = saved(tmp_path, lambda s: {"state_dict": s, "value": value})
    with pytest.raises(CheckpointError, match=rf"holds a \w+\.{type(value).__name__}") as caught:
        read_state(file)
    assert "weights_only" not in str(caught.value) and "\n" not in str(caught.value)


def test_the_first_three_differences_are_named_one_of_each_kind_first(tmp_path: Path) -> None:
    def change(state: State) -> State:
        wrong = {**state, "0.weight": torch.zeros(9, 1, 1, 1), "other.a": torch.zeros(1)}
        return {n: t for n, t in wrong.items() if n not in ("1.weight", "1.bias")}

    file, _ = saved(tmp_path, change)
    with pytest.raises(
        CheckpointError,
        match=r"weights\.pth does not fit the model: it lacks '1\.weight'; '0\.weight' must have "
        r"shape \(4, 1, 1, 1\), but got \(9, 1, 1, 1\); it holds 'other\.a', which the model lacks "
        r"\(and 1 more\)",
    ):
        load_reference(net(), file)


def test_a_classifier_of_other_classes_is_told_and_marked_as_new(tmp_path: Path) -> None:
    file, state = saved(tmp_path, classes=3)
    model = net(4)
    with pytest.warns(UntrainedClassifier, match="a classifier of 3 classes.*model's has 4"):
        load_reference(model, file, replaceable=("2.",))
    assert torch.equal(model[0].weight, state["0.weight"])
    assert list(new_parameters(model)) == ["2.weight", "2.bias"]


@pytest.mark.parametrize("lacking", [("2.weight", "2.bias"), ("2.weight",)])
def test_a_checkpoint_may_lack_a_whole_head_and_not_a_part_of_it(
    lacking: tuple[str, ...], tmp_path: Path
) -> None:
    file, _ = saved(tmp_path, lambda s: {n: t for n, t in s.items() if n not in lacking})
    model = net(4)
    if len(lacking) == 1:
        with pytest.raises(CheckpointError, match=r"it lacks '2\.weight'"):
            load_reference(model, file, replaceable=("2.",))
        return
    with pytest.warns(UntrainedClassifier, match="no classifier, but the model's has 4"):
        load_reference(model, file, replaceable=("2.",))
    assert list(new_parameters(model)) == ["2.weight", "2.bias"]


def test_a_decoder_without_its_classifier_lacks_the_classifier_alone(tmp_path: Path) -> None:
    file, _ = saved(tmp_path, lambda s: {n: t for n, t in s.items() if not n.startswith("2.")})
    model = net(4)
    with pytest.warns(UntrainedClassifier, match="no classifier, but the model's has 4"):
        load_reference(model, file, replaceable=("2.",), heads=("1.",))
    assert list(new_parameters(model)) == ["2.weight", "2.bias"]


def test_files_of_other_kinds_are_refused_without_bad_advice(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("name: a\n")
    torch.jit.save(torch.jit.script(nn.Linear(1, 1)), tmp_path / "b.pt")
    for name, why in (("a.yaml", "no file that torch.save wrote"), ("b.pt", "TorchScript")):
        with pytest.raises(CheckpointError, match=rf"{name} can't be read.*{why}") as caught:
            read_state(tmp_path / name)
        assert "weights_only" not in str(caught.value)


def test_a_folder_is_read_as_save_pretrained_wrote_it(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is a folder, and has no model\.safetensors or"):
        load_reference(net(), str(tmp_path))
    file, state = saved(tmp_path)
    Path(file).rename(tmp_path / "pytorch_model.bin")
    model = net()
    load_reference(model, str(tmp_path))
    assert torch.equal(model[0].weight, state["0.weight"])


def test_quantised_weights_are_refused(tmp_path: Path) -> None:
    file, _ = saved(tmp_path, lambda s: {n: (127 * t).to(torch.int8) for n, t in s.items()})
    with pytest.raises(CheckpointError, match=r"real numbers, but '0\.weight' is torch\.int8"):
        load_reference(net(), file)


def vit(size: int) -> Any:
    arguments = {"img_size": size, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2}
    return search_spaces.create("vit", arguments={**arguments, "num_classes": 3})


def test_positions_of_another_image_size_are_resampled(tmp_path: Path) -> None:
    original = vit(32).reference()
    with torch.no_grad():  # as even as positions can be: those of any size then
        original.pos_embed.copy_(original.pos_embed[:, :1].expand_as(original.pos_embed))
    torch.save({"model": original.state_dict()}, tmp_path / "vit.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = vit(16).build(str(tmp_path / "vit.pth"))
    positions = model.chain[0].vit.pos_embed
    assert positions.shape == (1, 17, 16)
    torch.testing.assert_close(positions, original.pos_embed[:, :17], rtol=1e-4, atol=1e-5)
