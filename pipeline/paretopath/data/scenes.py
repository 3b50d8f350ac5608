"""Scenes of handwritten digits: a small data set for segmentation and detection, always there.

Several of scikit-learn's digits (real 8x8 scans) stand on a coloured canvas, each at its own size
and tint, over a smooth ground and noise. The mask has class 0 where nothing stands and class d + 1
on the pixels of a digit d; a digit's box is around its ink, what lies over it included. A scene
depends on its split and number alone; the digits of one split occur in no other.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.nn.functional import interpolate

from paretopath.data.images import to_tensor

CLASSES = ("ground", *(str(digit) for digit in range(10)))
SCENES = {"train": 640, "validation": 160, "test": 240}
SCENES_WITH_BOXES = {"train": 2560, "validation": 200, "test": 200}
SIZE = 64  # pixels of a canvas, either way
DIGITS = (3, 6)  # least and most digits of a scene
PIXELS = (16, 28)  # least and largest size of a digit
PLACES = 4  # that are tried for a digit, so that few lie over others
INK = 0.35  # a pixel belongs to a digit from this share of full ink on

Floats = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Scene:
    """One scene.

    Attributes:
        image: (C, Y, X) uint8.
        mask: (Y, X) uint8.
        boxes: (n, 4) x0, y0, x1, y1 in pixels, the last ones exclusive.
        digits: (n,) 0 to 9.
    """

    image: Tensor
    mask: Tensor
    boxes: npt.NDArray[np.int64]
    digits: npt.NDArray[np.int64]


@dataclass(frozen=True)
class SceneExamples:
    """The scenes of one split.

    Attributes:
        digits: (n, 8, 8) ink in [0, 1], of this split alone.
        labels: (n,) digit of each, 0 to 9.
        length: how many scenes.
        seed: at least 0; scene i is drawn from (seed, i).
        channels: of the images, 3 or 1.
    """

    digits: Floats
    labels: npt.NDArray[np.int64]
    length: int
    seed: int
    channels: int

    def __len__(self) -> int:
        return self.length

    def scene(self, index: int) -> Scene:
        """One scene with everything that is known of it."""
        rng = np.random.Generator(np.random.PCG64([self.seed, index]))
        canvas, mask = _ground(rng), np.zeros((SIZE, SIZE), dtype=np.uint8)
        placed = [
            self._place(canvas, mask, rng)
            for _ in range(int(rng.integers(DIGITS[0], DIGITS[1] + 1)))
        ]
        canvas += rng.normal(0.0, 0.04, canvas.shape).astype(np.float32)
        image = (canvas.clip(0, 1) * 255).round().astype(np.uint8)
        found = np.array(placed, dtype=np.int64)
        return Scene(
            to_tensor(image, self.channels), torch.from_numpy(mask), found[:, :4], found[:, 4]
        )

    def example(self, index: int) -> tuple[Tensor, Tensor]:
        """An image (C, Y, X), uint8, and its mask (Y, X), uint8."""
        scene = self.scene(index)
        return scene.image, scene.mask

    def mask(self, index: int) -> Tensor:
        """The mask of a scene alone."""
        return self.example(index)[1]

    def describe(self, index: int) -> str:
        """Which scene it is, for errors."""
        return f"scene {index}"

    def _place(
        self, canvas: Floats, mask: npt.NDArray[np.uint8], rng: np.random.Generator
    ) -> tuple[int, ...]:
        """Draws one random digit over what is there; returns its box and what it is."""
        chosen = int(rng.integers(len(self.digits)))
        size = int(rng.integers(PIXELS[0], PIXELS[1] + 1))
        window = _free_window(mask, size, rng)
        digit = torch.from_numpy(self.digits[chosen])[None, None]
        resized = interpolate(digit, size=(size, size), mode="bicubic", align_corners=False)
        ink = resized[0, 0].numpy().clip(0, 1)
        tint = rng.uniform(0.55, 1.0, 3).astype(np.float32)
        canvas[window] += ink[..., None] * (tint - canvas[window])
        mask[window][ink > INK] = self.labels[chosen] + 1
        y, x = (np.flatnonzero((ink > INK).any(axis)) + window[1 - axis].start for axis in (1, 0))
        return (
            *(int(side) for side in (x[0], y[0], x[-1] + 1, y[-1] + 1)),
            int(self.labels[chosen]),
        )


def scenes(channels: int, lengths: Mapping[str, int] = SCENES) -> dict[str, SceneExamples]:
    """The three splits of the data set, by name.

    Args:
        channels: of the images, 3 or 1.
        lengths: scenes of each split, which has the digits that :data:`SCENES` gives it.
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    ink, labels = (digits.images / 16).astype(np.float32), digits.target.astype(np.int64)
    total, start, found = sum(SCENES.values()), 0, {}
    for seed, (name, share) in enumerate(SCENES.items()):
        stop = start + round(len(ink) * share / total)
        mine = slice(start, stop)
        found[name] = SceneExamples(ink[mine], labels[mine], lengths[name], seed, channels)
        start = stop
    return found


def _free_window(
    mask: npt.NDArray[np.uint8], size: int, rng: np.random.Generator
) -> tuple[slice, slice]:
    """The least covered of a few random places."""
    places = rng.integers(0, SIZE - size + 1, (PLACES, 2)).tolist()
    windows = [(slice(y, y + size), slice(x, x + size)) for y, x in places]
    return min(windows, key=lambda window: np.count_nonzero(mask[window]))


def _ground(rng: np.random.Generator) -> Floats:
    """A dark ground (Y, X, 3) whose colours change smoothly."""
    coarse = torch.from_numpy(rng.uniform(0.0, 0.4, (1, 3, 4, 4)).astype(np.float32))
    smooth = interpolate(coarse, size=(SIZE, SIZE), mode="bicubic", align_corners=False)
    return smooth[0].permute(1, 2, 0).contiguous().numpy()
