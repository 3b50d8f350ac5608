"""Gradient training that starts from calibrated weights."""

import copy

import pytest
import torch
from torch import Tensor

import search_spaces
from paretopath.calibration.moments import calibrate
from paretopath.elastic import ElasticModel
from paretopath.paths import ExecutionPath
from paretopath.recipe import RetrainSettings
from paretopath.tasks.segmentation.task import Segmentation
from paretopath.training.retrain import SeparateTraining, SharedTraining

CLASSES = 4


@pytest.fixture(scope="module")
def batch() -> tuple[Tensor, Tensor]:
    """Images whose classes follow from their colours, coarse enough for a tiny SegFormer."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.randint(CLASSES, (8, 4, 4), generator=generator)
    masks = coarse.repeat_interleave(8, 1).repeat_interleave(8, 2)
    colours = torch.eye(CLASSES)[:, :3]
    images = colours[masks].permute(0, 3, 1, 2)
    return images + 0.1 * torch.randn(images.shape, generator=generator), masks


@pytest.fixture(scope="module")
def trained(batch: tuple[Tensor, Tensor]) -> ElasticModel:
    """A calibrated model whose full path was trained."""
    torch.manual_seed(0)
    space = search_spaces.create(
        "segformer",
        variant=None,
        arguments={
            "depths": (1, 1, 1, 1),
            "hidden_sizes": (8, 16, 24, 32),
            "num_attention_heads": (1, 2, 2, 4),
            "decoder_hidden_size": 32,
            "drop_path_rate": 0.0,
            "classifier_dropout_prob": 0.0,
        },
        image_size=32,
        num_classes=CLASSES,
    )
    model = space.build()
    steps(SharedTraining(model, [], RetrainSettings(), Segmentation(), distil=False), batch, 50)
    calibrate(model, [batch])
    return model


def steps(module: SharedTraining | SeparateTraining, batch: tuple[Tensor, Tensor], n: int) -> None:
    """Plain AdamW steps on one batch."""
    module.train()
    optimizer = torch.optim.AdamW((p for p in module.parameters() if p.requires_grad), lr=3e-3)
    for index in range(n):
        optimizer.zero_grad()
        module.training_step(batch, index).backward()
        optimizer.step()
    module.eval()


@torch.no_grad()
def loss_of(model: torch.nn.Module, batch: tuple[Tensor, Tensor]) -> float:
    return float(Segmentation().loss(model(batch[0]), batch[1]))


def losses(
    model: ElasticModel, paths: list[ExecutionPath], batch: tuple[Tensor, Tensor]
) -> list[float]:
    found = []
    for path in paths:
        with model.active(path):
            found.append(loss_of(model, batch))
    return found


def narrow_paths(model: ElasticModel) -> list[ExecutionPath]:
    space = model.space
    ffn = {d.name: 0.25 for d in space.decisions if d.name.endswith("mlp_ratio")}
    fuse = {d.name: 0.125 for d in space.decisions if d.name.endswith("keep")}
    return [
        space.canonical({**ffn, **fuse, "decoder.width": 0.25}),
        space.canonical({**ffn, "decoder.form": "merged", "decoder.width": 0.25}),
        space.full,
    ]


def test_shared_training_improves_calibrated_paths_and_keeps_the_full_one(
    trained: ElasticModel, batch: tuple[Tensor, Tensor]
) -> None:
    model = copy.deepcopy(trained)
    paths = narrow_paths(model)
    moments = {n: b.clone() for n, b in model.named_buffers() if ".compensation." in n}
    before = losses(model, paths, batch)
    module = SharedTraining(model, paths, RetrainSettings(), Segmentation())
    steps(module, batch, 25)
    after = losses(model, paths, batch)
    assert all(new < old for new, old in zip(after, before, strict=True))
    assert all(new < 0.8 * old for new, old in zip(after[:-1], before[:-1], strict=True))
    assert moments and all(
        torch.equal(dict(model.named_buffers())[n], b) for n, b in moments.items()
    )


def test_trained_paths_extract_as_they_run(
    trained: ElasticModel, batch: tuple[Tensor, Tensor]
) -> None:
    model = copy.deepcopy(trained)
    paths = narrow_paths(model)
    steps(SharedTraining(model, paths, RetrainSettings(), Segmentation()), batch, 3)
    for path, expected in zip(paths, losses(model, paths, batch), strict=True):
        assert loss_of(model.extract(path).eval(), batch) == pytest.approx(expected, rel=1e-4)


def test_separate_training_starts_from_the_calibrated_path(
    trained: ElasticModel, batch: tuple[Tensor, Tensor]
) -> None:
    path = narrow_paths(trained)[0]
    student = trained.extract(path)
    (before,) = losses(trained, [path], batch)
    assert loss_of(student.eval(), batch) == pytest.approx(before, rel=1e-4)
    steps(SeparateTraining(student, trained, RetrainSettings(), Segmentation()), batch, 25)
    assert loss_of(student, batch) < before


def test_moments_are_not_sent_between_processes_at_every_step(trained: ElasticModel) -> None:
    module = SharedTraining(trained, [], RetrainSettings(), Segmentation())
    ignored = set(module._ddp_params_and_buffers_to_ignore)
    assert {n for n, _ in module.named_buffers() if n.endswith("covariance")} <= ignored
    assert ignored and not [n for n in ignored if "running_mean" in n]
