"""Heads on a frozen vision transformer, learnt from tokens that are computed once and kept.

What the benchmarks of natural images share: images of a folder with ``train.parquet`` and
``validation.parquet`` (columns ``image`` and ``label``), the trunk's tokens where heads sit, heads
trained on them, and what the heads say of images that they were not trained on. Everything that
takes long is kept in a cache folder, a file each, written under another name first.
"""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from datasets import load_dataset
from PIL import Image, ImageOps
from torch import Tensor, nn

from paretopath.elastic import ElasticModel
from paretopath.policies.outputs import ExitOutputs
from search_spaces.exit_heads import OWN_HEADS

SAMPLES_SEEN = {"linear": 320_000, "mlp": 320_000, "attention": 160_000, "convolution": 160_000}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Images:
    """Labelled images of a part, as the network takes them.

    Attributes:
        pixels: (n, Y, X, 3) uint8.
        labels: (n,) int64.
    """

    pixels: np.ndarray
    labels: Tensor

    def batches(self, size: int, count: int) -> list[Tensor]:
        """The first ``count`` images, (B, 3, Y, X) float32."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        chunks = (self.pixels[i : min(i + size, count)] for i in range(0, count, size))
        return [
            (torch.from_numpy(np.array(chunk)).permute(0, 3, 1, 2).float() / 255 - mean) / std
            for chunk in chunks
        ]

    def __len__(self) -> int:
        return len(self.labels)


def read_images(file: Path, start: int, end: int | None, pixels: int) -> Images:
    """Images of a parquet file, cut square about their middle and resized."""
    end_row = "" if end is None else end
    table = load_dataset("parquet", data_files=str(file), split=f"train[{start}:{end_row}]")
    undecoded = table.cast_column("image", table.features["image"].__class__(decode=False))
    pictures = [
        np.asarray(
            ImageOps.fit(
                Image.open(io.BytesIO(row["image"]["bytes"])).convert("RGB"),
                (pixels, pixels),
                Image.Resampling.BICUBIC,
            )
        )
        for row in undecoded
    ]
    return Images(np.stack(pictures), torch.tensor(table["label"]))


@dataclass(frozen=True)
class Trunk:
    """A frozen transformer and where its tokens are kept.

    Attributes:
        model: whose full path is the trunk; its exits are not run.
        blocks: after which tokens are kept.
        cache: folder.
    """

    model: ElasticModel
    blocks: tuple[int, ...]
    cache: Path

    @torch.inference_mode()
    def keep(self, part: str, images: Images, batch: int = 100) -> None:
        """Writes tokens of all images after each block, unless they are there."""
        if self._file(part, self.blocks[-1]).is_file():
            return
        steps = self.model.steps(self.model.space.full)[:-1]  # the stem, then the blocks
        kept: dict[int, Any] = {}
        for first, state in enumerate(images.batches(batch, len(images))):
            for number, step in enumerate(steps):
                state = step(state)
                if number in self.blocks:
                    if number not in kept:
                        shape = (len(images), *state.shape[1:])
                        file = self._file(part, number).with_suffix(".part")
                        kept[number] = np.lib.format.open_memmap(file, "w+", np.float16, shape)
                    kept[number][first * batch : first * batch + len(state)] = state.half().numpy()
        for number, array in kept.items():
            array.flush()
            self._file(part, number).with_suffix(".part").rename(self._file(part, number))

    def tokens(self, part: str, block: int) -> Tensor:
        """(n, N, D) float16 after a block."""
        return torch.from_numpy(np.load(self._file(part, block)))

    def _file(self, part: str, block: int) -> Path:
        return self.cache / f"{part}_tokens_{block}.npy"

    def head(self, kind: str, block: int, labels: Tensor) -> nn.Module:
        """A head after a block, learnt from the labels of the part ``train``."""
        file = self.cache / f"head_{kind}_{block}.pt"
        torch.manual_seed(0)
        head = OWN_HEADS[kind](self.model.space.reference())  # type: ignore[attr-defined]
        if not file.is_file():
            train(head, self.tokens("train", block), labels, SAMPLES_SEEN[kind])
            torch.save(head.state_dict(), file)
        head.load_state_dict(torch.load(file, weights_only=True))
        return head.eval()

    @torch.inference_mode()
    def logits(self, part: str, head: nn.Module, block: int) -> Tensor:
        """(n, classes) what a head after a block says."""
        return torch.cat([head(chunk.float()) for chunk in self.tokens(part, block).split(500)])


def train(head: nn.Module, features: Tensor, labels: Tensor, samples: int) -> None:
    """Trains a head on kept tokens: AdamW, one cycle, smoothed labels.

    Args:
        head: is changed.
        features: (n, N, D) float16.
        labels: (n,).
        samples: how many images it sees in all, of at most 60 rounds.
    """
    size = min(128, len(features))
    batches = len(features) // size
    epochs = min(60, round(samples / (batches * size)))
    optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 1.5e-3, total_steps=epochs * batches, pct_start=0.1
    )
    for _ in range(epochs):
        for chosen in torch.randperm(len(features))[: batches * size].split(size):
            optimizer.zero_grad()
            logits = head(features[chosen].float())
            F.cross_entropy(logits, labels[chosen], label_smoothing=0.05).backward()
            optimizer.step()
            schedule.step()


def exit_outputs(blocks: Sequence[int], logits: Sequence[Tensor], labels: Tensor) -> ExitOutputs:
    """What exits after these blocks said of images."""
    every = torch.stack(list(logits))
    right = (every.argmax(-1) == labels).numpy()
    return ExitOutputs(tuple(f"exits.{block}" for block in blocks), every, labels, right)
