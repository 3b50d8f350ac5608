"""What a detector's units hand on: maps, tokens, queries; and what its exits give."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from paretopath.elastic import Batched
from paretopath.tasks.detection.objects import Objects, PaddedImages


@dataclass(frozen=True)
class Maps(Batched):
    """Feature maps on the way through a backbone and its neck.

    Attributes:
        x: a map (B, C, Y, X), or a tuple of all that are needed later.
        sizes: (B, 2) height and width of each image without padding, in pixels.
        padding: (B, Y, X) bool, True where a pixel of the images is padding.
        targets: see :class:`~paretopath.tasks.detection.objects.PaddedImages`.
        kept: maps for the neck, where ``x`` alone goes on.
    """

    x: Any
    sizes: Tensor
    padding: Tensor
    targets: Objects | None = None
    kept: tuple[Tensor, ...] = ()

    @property
    def features(self) -> tuple[Tensor, ...]:
        """The maps for the neck, the largest first."""
        return self.kept or (self.x if isinstance(self.x, tuple) else (self.x,))

    @classmethod
    def of(cls, state: Any) -> "Maps":
        """The same, or images as the first map."""
        if isinstance(state, Maps):
            return state
        images = PaddedImages.of(state)
        return cls(images.pixels, images.sizes, images.padding, images.targets)


@dataclass(frozen=True)
class Levels:
    """Heights and widths of the maps whose positions are tokens, the first level's first."""

    shapes: tuple[tuple[int, int], ...]

    @property
    def tokens(self) -> list[int]:
        """Of each level."""
        return [height * width for height, width in self.shapes]


@dataclass(frozen=True)
class Tokens(Batched):
    """What encoder layers work on: N positions of all maps.

    Attributes:
        x: (B, N, C) features.
        positions: (B, N, C) what is added to them where they are compared.
        padding: (B, N) bool.
        ratios: (B, L, 2) the share of each map's width and height that is no padding.
        references: (B, N, L, 2) where each token lies in each map, x and y in shares of the map;
            None where attention is global.
        sizes: (B, 2) of the images.
        levels: of the maps.
        targets: in training.
    """

    x: Tensor
    positions: Tensor
    padding: Tensor
    ratios: Tensor
    references: Tensor | None
    sizes: Tensor
    levels: Levels
    targets: Objects | None = None


@dataclass(frozen=True)
class Denoising:
    """Queries made of noisy targets, which come before the others in training.

    Attributes:
        queries: how many.
        groups: among which they are shared; groups don't see each other.
    """

    queries: int
    groups: int

    @property
    def meta(self) -> dict[str, int]:
        """As mmdet's heads take it."""
        return {"num_denoising_queries": self.queries, "num_denoising_groups": self.groups}


@dataclass(frozen=True)
class Boxes(Batched):
    """Class logits (B, Q, classes) and boxes (B, Q, 4): cx, cy, w, h in shares of the image."""

    logits: Tensor
    boxes: Tensor


class Proposed:
    """What was found before any query; what all exits of a step lose by it is found once.

    Args:
        found: of the tokens.
    """

    def __init__(self, found: Boxes) -> None:
        self.found = found
        self._lost: Tensor | None = None

    def lost(self, by: Callable[[Boxes], Tensor]) -> Tensor:
        """The loss of what was found, as ``by`` has it the first time."""
        if self._lost is None:
            self._lost = by(self.found)
        return self._lost


@dataclass(frozen=True)
class Queries(Batched):
    """What decoder layers work on: Q queries of an image, and the tokens that they look at.

    Attributes:
        x: (B, Q, C) the queries.
        positions: (B, Q, C) what is added to them where they are compared; None where each layer
            makes it from the references.
        references: (B, Q, 2) or (B, Q, 4) points or boxes that the last layer started from, cx, cy,
            w, h in shares of the image; None where queries have none.
        tokens: encoded.
        keys: (B, Q) the token, or the learned query, that each came from; None with denoising.
        denoising: the first queries, where targets were given; None elsewhere.
        proposals: what was found before any query, in training alone.
    """

    x: Tensor
    positions: Tensor | None
    references: Tensor | None
    tokens: Tokens
    keys: Tensor | None = None
    denoising: Denoising | None = None
    proposals: Proposed | None = None
