"""A detector small enough for tests: each cell of a grid may find the object whose centre it holds.

(As YOLO, arXiv 1506.02640, with one box a cell.) Two blocks, an exit with a head of its own after
each; a stand-in for any family of one's own that takes padded images and gives raw detections.
"""

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.elastic import (
    Batched,
    ChannelGroup,
    Choice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticSpace,
    Onto,
    Reader,
    State,
    Unit,
)
from paretopath.elastic.layers import absorb_bias
from paretopath.paths import Condition, Decision
from paretopath.tasks.detection.objects import NOTHING, Detections, Objects, PaddedImages

STRIDE = 8  # pixels of a cell
WIDTHS = (0.5, 1.0)


@dataclass(frozen=True)
class Grid(Batched):
    """Features (B, C, y, x) of cells, and the images' sizes (B, 2) in pixels."""

    features: Tensor
    sizes: Tensor


@dataclass(frozen=True)
class GridDetections(Batched):
    """Class logits (B, classes, y, x), sides (B, 4, y, x) as shares of the input around a cell's
    centre, and the images' sizes (B, 2).
    """

    logits: Tensor
    sides: Tensor
    sizes: Tensor

    @property
    def boxes(self) -> Tensor:
        """(B, 4, y, x) in pixels."""
        height, width = self.logits.shape[-2:]
        y = (torch.arange(height, device=self.logits.device) + 0.5)[:, None].expand(height, width)
        x = (torch.arange(width, device=self.logits.device) + 0.5)[None].expand(height, width)
        reach = self.sides.exp() * STRIDE
        centre = torch.stack([x, y, x, y]) * STRIDE
        return centre + reach * reach.new_tensor([-1, -1, 1, 1])[:, None, None]

    def loss(self, targets: Objects) -> Tensor:
        classes, boxes, held = self._wanted(targets)
        number = held.sum().clamp(min=1)
        weight = torch.where(classes > 0, 1.0, 0.1)
        found = F.binary_cross_entropy_with_logits(self.logits, classes, weight, reduction="sum")
        apart = (self.boxes - boxes).abs().mean(1) / STRIDE
        return (found + (apart * held).sum()) / number

    def predict(self) -> Detections:
        scores, labels = self.logits.sigmoid().flatten(2).max(1)
        scores, order = scores.sort(1, descending=True)
        boxes = self.boxes.flatten(2).transpose(1, 2).gather(1, order[..., None].expand(-1, -1, 4))
        limit = self.sizes.flip(1).repeat(1, 2)[:, None].to(boxes)
        boxes = torch.minimum(boxes.clamp(min=0), limit)
        labels = labels.gather(1, order)
        empty = (boxes[..., 2:] - boxes[..., :2]).amin(-1) <= 0
        return Detections(boxes, scores.masked_fill(empty, 0), labels.masked_fill(empty, NOTHING))

    def distill(self, teacher: "GridDetections") -> Tensor:
        sure = teacher.logits.sigmoid().amax(1, keepdim=True)
        boxes = ((self.sides - teacher.sides).abs() * sure).mean()
        return F.mse_loss(self.logits, teacher.logits) + boxes

    def _wanted(self, targets: Objects) -> tuple[Tensor, Tensor, Tensor]:
        """Classes (B, classes, y, x), boxes (B, 4, y, x), and which cells hold an object."""
        classes, boxes = torch.zeros_like(self.logits), torch.zeros_like(self.sides)
        for image in range(len(targets)):
            for box, label in zip(*targets.of_image(image), strict=True):
                x, y = ((box[:2] + box[2:]) / 2 / STRIDE).long().tolist()
                classes[image, int(label), y, x] = 1
                boxes[image, :, y, x] = box
        return classes, boxes, classes.amax(1)


class Stem(Unit):
    """Padded images -> cells."""

    def __init__(self, width: int) -> None:
        super().__init__("stem")
        self.conv = nn.Conv2d(3, width, STRIDE, stride=STRIDE)

    def forward(self, state: State, choice: Choice) -> State:
        images = PaddedImages.of(state)
        return Grid(self.conv(images.pixels).relu(), images.sizes)

    def extract(self, choice: Choice) -> nn.Module:
        return StaticStem(copy.deepcopy(self.conv))


class StaticStem(nn.Module):
    def __init__(self, conv: nn.Module) -> None:
        super().__init__()
        self.conv = conv

    def forward(self, images: PaddedImages) -> Grid:
        images = PaddedImages.of(images)
        return Grid(self.conv(images.pixels).relu(), images.sizes)


class Block(Unit):
    """Two convolutions beside a shortcut; ``NAME.width`` narrows what is between them."""

    def __init__(self, name: str, width: int, requires: Condition | None) -> None:
        super().__init__(name, decisions=(f"{name}.width",), requires=requires)
        self.conv1 = ElasticConv2d(width, width, (3, 3), padding=1)
        self.conv2 = ElasticConv2d(width, width, (3, 3), padding=1, bias=False)
        self.norm = ElasticBatchNorm2d(width)

    def middle(self, choice: Choice) -> int:
        return round(self.conv1.out_channels * float(choice[self.decisions[0]]))

    def forward(self, state: State, choice: Choice) -> State:
        inner = self.conv1(state.features, self.middle(choice)).relu()
        onto = Onto(state.features, self.norm)
        return Grid(state.features + self.norm(self.conv2(inner, onto=onto)), state.sizes)

    def extract(self, choice: Choice) -> nn.Module:
        middle, width = self.middle(choice), self.conv2.out_channels
        conv2, norm = self.conv2.narrow(middle, width), self.norm.narrow(width)
        absorb_bias(conv2, norm)
        conv1 = self.conv1.narrow(self.conv1.in_channels, middle)
        return StaticBlock(nn.Sequential(conv1, nn.ReLU(), conv2, norm))

    def channel_groups(self) -> list[ChannelGroup]:
        entries = self.conv1.out_channels
        return [ChannelGroup(entries, makers=("conv1",), readers=(Reader("conv2"),))]


class StaticBlock(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, state: Grid) -> Grid:
        return Grid(state.features + self.inner(state.features), state.sizes)


class Exit(Unit):
    """A head after a block."""

    is_exit = True

    def __init__(self, number: int, width: int, classes: int) -> None:
        super().__init__(f"exits.{number}", requires=Condition("exit", (number,)))
        self.head = ElasticConv2d(width, classes + 4, (1, 1))
        nn.init.constant_(self.head.bias[:classes], -3.0)

    def forward(self, state: State, choice: Choice) -> State:
        return split(self.head(state.features), state.sizes)

    def extract(self, choice: Choice) -> nn.Module:
        return StaticExit(self.head.narrow(self.head.in_channels, self.head.out_channels))


class StaticExit(nn.Module):
    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, state: Grid) -> GridDetections:
        return split(self.head(state.features), state.sizes)


def split(output: Tensor, sizes: Tensor) -> GridDetections:
    return GridDetections(output[:, :-4], output[:, -4:], sizes)


class GridDetector(ElasticSpace):
    """Two blocks; ``exit`` says after which the path ends."""

    def __init__(
        self,
        *,
        width: int = 32,
        num_classes: int = 10,
        input_shape: tuple[int, int, int] = (3, 64, 64),
    ) -> None:
        self.width, self.num_classes = width, num_classes
        later = Condition("exit", (2,))
        super().__init__(
            [
                Decision("exit", (1, 2)),
                Decision("blocks.1.width", WIDTHS),
                Decision("blocks.2.width", WIDTHS, later),
            ],
            input_shape=tuple(input_shape),
        )

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        width, classes = self.width, self.num_classes
        return [
            Stem(width),
            Block("blocks.1", width, None),
            Exit(1, width, classes),
            Block("blocks.2", width, Condition("exit", (2,))),
            Exit(2, width, classes),
        ]
