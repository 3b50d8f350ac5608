"""The published CIFAR-10 ResNets as a family of one's own: blocks skipped, and narrowed inside.

He et al., "Deep Residual Learning" (arXiv 1512.03385, section 4.2), shortcuts by striding and zero
channels. In a recipe: ``name: "resnet_cifar:CifarResNetSpace"`` and ``options: {depth: 56}``, with
this folder on ``PYTHONPATH``.
"""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.elastic import (
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
from paretopath.elastic.options import Count, Shares, checked
from paretopath.errors import InvalidValueError
from paretopath.paths import Condition, Decision
from paretopath.weights.files import load_reference
from search_spaces.widths import channels, fractions

STAGES = (16, 32, 64)  # channels


class Shortcut(nn.Module):
    """The block's input, every second pixel of it, as many zero channels on either side."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.stride, self.more = stride, (outputs - inputs) // 2

    @property
    def is_identity(self) -> bool:
        return self.stride == 1 and self.more == 0

    def forward(self, x: Tensor) -> Tensor:
        if self.is_identity:
            return x
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, self.more, self.more))


class PlainBlock(nn.Module):
    """Two convolutions beside a shortcut; names as in the published state dicts."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut = Shortcut(inputs, outputs, stride)

    def forward(self, x: Tensor) -> Tensor:
        h = self.bn1(self.conv1(x)).relu()
        return (self.bn2(self.conv2(h)) + self.shortcut(x)).relu()


class PlainResNet(nn.Module):
    """Images (B, 3, Y, X) -> logits (B, num_classes).

    Args:
        depth: convolutions and the classifier, 6 n + 2.
        num_classes: of the logits.
    """

    def __init__(self, depth: int, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, STAGES[0], 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(STAGES[0])
        inputs = STAGES[0]
        for stage, width in enumerate(STAGES, 1):
            blocks = []
            for _ in range((depth - 2) // 6):
                blocks.append(PlainBlock(inputs, width, 1 if inputs == width else 2))
                inputs = width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(inputs, num_classes)

    @property
    def blocks(self) -> list[PlainBlock]:
        """Of all stages, in order."""
        return [*self.layer1, *self.layer2, *self.layer3]

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for block in self.blocks:
            x = block(x)
        return self.linear(x.mean((2, 3)))


class Stem(Unit):
    """Images (B, 3, Y, X) -> features (B, 16, Y, X)."""

    def __init__(self, net: PlainResNet) -> None:
        super().__init__("stem")
        self.conv, self.norm = net.conv1, ElasticBatchNorm2d.of(net.bn1)

    def forward(self, state: State, choice: Choice) -> State:
        return self.norm(self.conv(state)).relu()

    def extract(self, choice: Choice) -> nn.Module:
        norm = self.norm.narrow(self.norm.num_features)
        return nn.Sequential(copy.deepcopy(self.conv), norm, nn.ReLU())


class Block(Unit):
    """A block that runs with the first channels between its convolutions."""

    def __init__(self, name: str, block: PlainBlock, requires: Condition | None) -> None:
        super().__init__(name, decisions=(f"{name}.width",), requires=requires)
        self.conv1 = ElasticConv2d.of(block.conv1)
        self.bn1 = ElasticBatchNorm2d.of(block.bn1)
        self.conv2 = ElasticConv2d.of(block.conv2)
        self.bn2 = ElasticBatchNorm2d.of(block.bn2)
        self.shortcut = block.shortcut

    def _middle(self, choice: Choice) -> int:
        return channels(self.conv1.out_channels, choice[self.decisions[0]])

    def forward(self, state: State, choice: Choice) -> State:
        h = self.bn1(self.conv1(state, self._middle(choice))).relu()
        skip = self.shortcut(state)
        return (self.bn2(self.conv2(h, onto=Onto(skip, self.bn2))) + skip).relu()

    def extract(self, choice: Choice) -> nn.Module:
        middle, conv1, conv2 = self._middle(choice), self.conv1, self.conv2
        plain = PlainBlock(conv1.in_channels, conv1.out_channels, conv1.stride[0])
        plain.conv1, plain.bn1 = conv1.narrow(conv1.in_channels, middle), self.bn1.narrow(middle)
        plain.conv2 = conv2.narrow(middle, conv2.out_channels)
        plain.bn2 = self.bn2.narrow(conv2.out_channels)
        absorb_bias(plain.conv2, plain.bn2)
        return plain

    def channel_groups(self) -> list[ChannelGroup]:
        return [ChannelGroup(self.conv1.out_channels, ("conv1", "bn1"), (Reader("conv2"),))]


class Head(Unit):
    """Mean over pixels, logits (B, num_classes)."""

    is_exit = True

    def __init__(self, net: PlainResNet) -> None:
        super().__init__("head")
        self.linear = net.linear

    def forward(self, state: State, choice: Choice) -> State:
        return self.linear(state.mean((2, 3)))

    def extract(self, choice: Choice) -> nn.Module:
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), copy.deepcopy(self.linear))


class CifarResNetSpace(ElasticSpace):
    """The paths of a CIFAR ResNet.

    Decisions: ``blocks.I.run``, where the shortcut is the identity, and ``blocks.I.width``, the
    share of the channels between a block's convolutions.

    Args:
        depth: convolutions and the classifier, 6 n + 2: 20, 56, …
        num_classes: of the logits.
        widths: shares, in (0, 1].
        image_size: height and width in pixels.
    """

    batch_norm_per_path = True

    @checked
    def __init__(
        self,
        *,
        depth: Count = 56,
        num_classes: Count = 10,
        widths: Shares = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875, 1.0),
        image_size: Count = 32,
    ) -> None:
        if depth < 8 or (depth - 2) % 6:
            near = max(8, 6 * round((depth - 2) / 6) + 2)
            raise InvalidValueError(
                f"depth must be 6 n + 2 with n over 0, but got {depth}; nearest: {near}"
            )
        self.depth, self.num_classes = depth, num_classes
        self.widths = fractions("widths", widths)
        each = (depth - 2) // 6
        decisions, self.runs = [], []
        for i in range(3 * each):
            runs = None
            if i % each or i == 0:  # the first block of a later stage changes the shape
                decisions.append(Decision(f"blocks.{i}.run", (False, True)))
                runs = Condition(f"blocks.{i}.run", (True,))
            decisions.append(Decision(f"blocks.{i}.width", self.widths, runs))
            self.runs.append(runs)
        super().__init__(decisions, input_shape=(3, image_size, image_size))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        net = PlainResNet(self.depth, self.num_classes).eval()
        if checkpoint is not None:
            load_reference(net, checkpoint, rename=lambda name: name.removeprefix("module."))
        blocks = [Block(f"blocks.{i}", b, self.runs[i]) for i, b in enumerate(net.blocks)]
        return [Stem(net), *blocks, Head(net)]
