"""What a task may be: nothing in the engine asks for one size of images or for targets that are
tensors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader

from paretopath.calibration.moments import draw
from paretopath.elastic import Choice, ElasticSpace, State, Unit
from paretopath.evaluation.evaluator import Evaluator
from paretopath.paths import Decision
from paretopath.recipe import Racing, TrainSettings
from paretopath.search.racing import Racer
from paretopath.tasks.task import Score
from paretopath.training.retrain import SharedTraining
from paretopath.training.trainer import fit
from tests.pipeline.normalised_space import WIDTHS, Classifier, Convolution


@dataclass
class Padded:
    """Images of several sizes, padded to the largest.

    Attributes:
        pixels: (B, C, Y, X).
        sizes: (B, 2) of each image before it was padded.
    """

    pixels: Tensor
    sizes: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    def __getitem__(self, index: slice) -> "Padded":
        return Padded(self.pixels[index], self.sizes[index])

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Padded":
        return Padded(self.pixels.to(device), self.sizes.to(device))


class Unpad(Unit):
    """Blanks what lies outside each image."""

    def __init__(self) -> None:
        super().__init__("unpad")

    def forward(self, state: State, choice: Choice) -> State:
        height, width = (torch.arange(length) for length in state.pixels.shape[-2:])
        inside = (height[:, None] < state.sizes[:, 0, None, None]) & (
            width < state.sizes[:, 1, None, None]
        )
        return state.pixels * inside[:, None]

    def extract(self, choice: Choice) -> nn.Module:
        raise NotImplementedError


class PaddedSpace(ElasticSpace):
    def __init__(self) -> None:
        decisions = [Decision(f"{name}.width", WIDTHS) for name in ("first", "second")]
        super().__init__(decisions, input_shape=(1, 8, 8))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        first, second = Convolution("first", None, 1), Convolution("second", "first", WIDTHS[-1])
        return [Unpad(), first, second, Classifier()]


class Objects:
    """A task whose targets are a list of dictionaries, an image with any number of objects."""

    name = "objects"
    metric = "recall"

    def loss(self, output: Tensor, target: list[dict[str, Any]]) -> Tensor:
        held = torch.zeros_like(output)
        for row, objects in zip(held, target, strict=True):
            row[objects["labels"]] = 1.0
        return F.binary_cross_entropy_with_logits(output, held)

    def distillation_loss(self, output: Tensor, teacher: Tensor, target: Any) -> Tensor:
        return self.loss(output, target) + F.mse_loss(output, teacher.detach())

    def confidence(self, output: Tensor) -> Tensor:
        return output.sigmoid().amax(-1)

    def scorer(self) -> "Recall":
        return Recall()


class Recall:
    """Found and wanted objects image by image."""

    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []

    def update(self, output: Tensor, target: Sequence[dict[str, Any]]) -> None:
        for row, objects in zip(output > 0, target, strict=True):
            self.counts.append((int(row[objects["labels"]].sum()), len(objects["labels"])))

    def resampled(self, draws: np.ndarray) -> np.ndarray:
        found, wanted = np.array(self.counts, dtype=float).T
        return draws @ found / np.maximum(draws @ wanted, 1)

    def compute(self) -> Score:
        value = float(self.resampled(np.ones((1, len(self.counts))))[0])
        return Score(value, 0.0, len(self.counts))


def batches(number: int = 4, size: int = 4) -> list[tuple[Padded, list[dict[str, Any]]]]:
    rng = np.random.default_rng(0)
    found = []
    for _ in range(number):
        pixels = torch.from_numpy(rng.random((size, 1, 8, 8), dtype=np.float32))
        sizes = torch.from_numpy(rng.integers(4, 9, (size, 2)))
        targets = [
            {"labels": torch.from_numpy(rng.permutation(10)[: rng.integers(0, 4)]), "file": str(i)}
            for i in range(size)
        ]
        found.append((Padded(pixels, sizes), targets))
    return found


def test_padded_images_and_lists_of_objects_are_scored_and_raced() -> None:
    space = PaddedSpace()
    evaluator = Evaluator(space.build(), batches(), Objects())
    racer = Racer(
        evaluator,
        lambda paths: np.array([sum(map(float, path.values())) for path in paths]),
        racing=Racing(shares=(0.5,)),
    )
    outcomes = racer([space.full, space.smallest])
    assert isinstance(outcomes[0], Score) and outcomes[0].samples == 16


def test_padded_images_and_lists_of_objects_are_trained_on(tmp_path: Path) -> None:
    space = PaddedSpace()
    model = space.build()
    settings = TrainSettings(epochs=2, warmup_epochs=1)
    module = SharedTraining(model, [space.full, space.smallest], settings, Objects())
    weights = [p.detach().clone() for p in model.parameters()]
    loader: DataLoader[Any] = DataLoader(batches(), batch_size=None)  # type: ignore[arg-type]
    fit(module, loader, checkpoint_dir=tmp_path)
    assert any(not torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_part_of_a_padded_batch_can_be_drawn() -> None:
    drawn = list(draw(batches(), 6))
    assert [(len(images), len(targets)) for images, targets in drawn] == [(4, 4), (2, 2)]
