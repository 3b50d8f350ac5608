"""Heads on a frozen vision transformer, learnt from tokens that are computed once and kept.

What the benchmarks of natural images share: images of a folder with ``train.parquet`` and
``validation.parquet`` (columns ``image`` and ``label``), the trunk's tokens where heads sit, heads
trained on them, and what the heads say of images that they were not trained on. Everything that
takes long is kept in a cache folder, a file each, written under another name first.
"""

import io
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from datasets import load_dataset
from environment import fast_forward
from PIL import Image, ImageOps
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from paretopath.elastic import ElasticModel
from paretopath.policies.outputs import ExitOutputs
from paretopath.tasks.classification.task import Classification
from search_spaces.exit_heads import OWN_HEADS

CHUNK = 500  # images whose tokens are kept in a file
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

    def batches(self, size: int, start: int, end: int) -> list[Tensor]:
        """The images from one number to another, (B, 3, Y, X) float32."""
        mean, std = (torch.tensor(values).view(1, 3, 1, 1) for values in (MEAN, STD))
        chunks = (self.pixels[i : min(i + size, end)] for i in range(start, end, size))
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
    def keep(self, part: str, images: Images, *, fast: bool = False) -> None:
        """Writes tokens of all images after each block, unless they are there.

        Args:
            part: its name.
            images: of it.
            fast: in bfloat16, where the processor computes in it.
        """
        steps = self.model.steps(self.model.space.full)[:-1]  # the stem, then the blocks
        for start in range(0, len(images), CHUNK):
            if self._file(part, self.blocks[-1], start).is_file():
                continue
            kept: dict[int, list[Tensor]] = {block: [] for block in self.blocks}
            for state in images.batches(50, start, min(start + CHUNK, len(images))):
                for number, step in enumerate(steps):
                    with fast_forward() if fast else nullcontext():
                        state = step(state)
                    if number in kept:
                        kept[number].append(state.half())
            for block, batches in kept.items():
                save_file({"tokens": torch.cat(batches)}, self.cache / "part")
                (self.cache / "part").rename(self._file(part, block, start))

    def tokens(self, part: str, block: int) -> Tensor:
        """(n, N, D) float16 after a block."""
        files = sorted(self.cache.glob(f"{part}_tokens_{block}_*.safetensors"))
        return torch.cat([load_file(file)["tokens"] for file in files])

    def _file(self, part: str, block: int, start: int) -> Path:
        return self.cache / f"{part}_tokens_{block}_{start:06}.safetensors"

    def head(
        self, kind: str, block: int, labels: Tensor, teacher: Tensor | None = None
    ) -> nn.Module:
        """A head after a block, learnt on the part ``train``.

        Args:
            kind: of :data:`~search_spaces.exit_heads.OWN_HEADS`.
            block: after which it sits.
            labels: of the part.
            teacher: (n, classes) logits that it learns from too.
        """
        file = self.cache / f"head_{kind}_{block}{'' if teacher is None else '_taught'}.pt"
        torch.manual_seed(0)
        head = OWN_HEADS[kind](self.model.space.reference())  # type: ignore[attr-defined]
        if not file.is_file():
            train(head, self.tokens("train", block), labels, SAMPLES_SEEN[kind], teacher)
            torch.save(head.state_dict(), file)
        head.load_state_dict(torch.load(file, weights_only=True))
        return head.eval()

    @torch.inference_mode()
    def logits(self, part: str, head: nn.Module, block: int) -> Tensor:
        """(n, classes) what a head after a block says."""
        return torch.cat([head(chunk.float()) for chunk in self.tokens(part, block).split(500)])


def train(
    head: nn.Module, features: Tensor, labels: Tensor, samples: int, teacher: Tensor | None
) -> None:
    """Trains a head on kept tokens: AdamW, one cycle, smoothed labels.

    Args:
        head: is changed.
        features: (n, N, D) float16.
        labels: (n,).
        samples: how many images it sees in all, of at most 60 rounds.
        teacher: (n, classes) logits that it learns from too; labels alone if None.
    """
    task = Classification(label_smoothing=0.05)
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
            if teacher is None:
                task.loss(logits, labels[chosen]).backward()
            else:
                task.distillation_loss(logits, teacher[chosen], labels[chosen]).backward()
            optimizer.step()
            schedule.step()


def exit_outputs(blocks: Sequence[int], logits: Sequence[Tensor], labels: Tensor) -> ExitOutputs:
    """What exits after these blocks said of images."""
    every = torch.stack(list(logits))
    right = (every.argmax(-1) == labels).numpy()
    return ExitOutputs(tuple(f"exits.{block}" for block in blocks), every, labels, right)
