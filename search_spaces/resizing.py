"""Input size as a decision: images at a share of their height and width."""

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.elastic import Choice, State, Unit

SCALE = "input_scale"
"""The decision: a share of height and width."""


def scaled(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Height and width at a share, at least 1 each."""
    height, width = (max(1, round(n * scale)) for n in size)
    return height, width


def resized(images: Tensor, scale: float) -> Tensor:
    """Images (B, C, Y, X) at a share of their height and width."""
    if scale == 1:
        return images
    size = scaled((images.shape[2], images.shape[3]), scale)
    # PyTorch has no antialiasing for bfloat16 on a CPU
    x: Tensor = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
    return x.to(images.dtype)


class Resize(Unit):
    """Images at the size that a path says.

    Args:
        name: of the unit.
        resize: to a share of height and width, whatever the state is that holds the images; a
            module's function.
    """

    def __init__(self, name: str, resize: Callable[[State, float], State] = resized) -> None:
        super().__init__(name, decisions=(SCALE,))
        self.resize = resize

    def forward(self, state: State, choice: Choice) -> State:
        return self.resize(state, float(choice[SCALE]))

    def extract(self, choice: Choice) -> nn.Module:
        return PlainResize(float(choice[SCALE]), self.resize)


class PlainResize(nn.Module):
    """See :class:`Resize`."""

    def __init__(self, scale: float, resize: Callable[[State, float], State]) -> None:
        super().__init__()
        self.scale, self.resize = scale, resize

    def forward(self, state: State) -> State:
        return self.resize(state, self.scale)
