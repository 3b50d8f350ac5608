"""Weights and units of the Once-For-All ResNet-50; its space is :mod:`search_spaces.ofa_resnet`.

The network is ``OFAResNets`` of github.com/mit-han-lab/once-for-all (MIT licence): its numbers of
channels, and the names of its weights.
"""

from collections.abc import Container, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.elastic import (
    Choice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLinear,
    State,
    Unit,
)
from paretopath.paths import Condition

# The published network (ofa/imagenet_classification/networks/resnets.py, ofa/model_zoo.py).
EXTRA_DEPTHS = (0, 1, 2)
EXPANDS = (0.2, 0.25, 0.35)
WIDTHS = (0.65, 0.8, 1.0)
BASE_DEPTHS = (2, 2, 4, 2)
STAGE_WIDTHS = (256, 512, 1024, 2048)
STEM_WIDTH = 64


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``channels``, the next where that loses over a tenth.

    From TensorFlow's MobileNet, as Once-For-All uses it (ofa/utils/pytorch_modules.py).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


def channels(decision: str, choice: Choice) -> int:
    """The channels to which a width decision's multiplier rounds."""
    multiplier = float(choice[decision])
    if decision.startswith("stages."):
        return make_divisible(STAGE_WIDTHS[int(decision.split(".")[1])] * multiplier)
    width = make_divisible(STEM_WIDTH * multiplier)
    return make_divisible(width // 2) if decision == "stem.mid_width" else width


def reached(stage: int, block: int) -> Condition | None:
    """Where a stage is deep enough to have the block."""
    depths = tuple(d for d in EXTRA_DEPTHS if BASE_DEPTHS[stage] + d > block)
    return Condition(f"stages.{stage}.depth", depths) if len(depths) < len(EXTRA_DEPTHS) else None


def official_name(name: str, known: Container[str]) -> str:
    """The supernet's name of an entry that a published file may hold under a static network's.

    As ``OFAResNets.load_state_dict`` does: ``conv1.bn.weight`` -> ``conv1.bn.bn.weight``.
    """
    if name in known:
        return name
    for short, doubled in _DOUBLED:
        if short in name:
            return name.replace(short, doubled)
    return name


_DOUBLED = (
    (".linear.", ".linear.linear."),
    ("bn.", "bn.bn."),
    ("conv.weight", "conv.conv.weight"),
)


class ConvNorm(nn.Module):
    """Elastic convolution without bias, then batch normalisation, by their official names."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        conv = ElasticConv2d(
            inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False
        )
        self.conv = nn.ModuleDict({"conv": conv})
        self.bn = nn.ModuleDict({"bn": ElasticBatchNorm2d(outputs)})

    @property
    def layers(self) -> tuple[ElasticConv2d, ElasticBatchNorm2d]:
        """The convolution and its normalisation."""
        return self.conv["conv"], self.bn["bn"]  # type: ignore[return-value]

    def forward(self, x: Tensor, outputs: int) -> Tensor:
        """(B, inputs, IY, IX) -> (B, outputs, OY, OX)."""
        conv, norm = self.layers
        return norm(conv(x, outputs))  # type: ignore[no-any-return]

    def narrow(self, inputs: int, outputs: int) -> list[nn.Module]:
        """Plain copies of both with the first channels."""
        conv, norm = self.layers
        return [conv.narrow(inputs, outputs), norm.narrow(outputs)]


class Bottleneck(nn.Module):
    """The weights of one bottleneck: 1x1, 3x3 (which strides), 1x1; a 1x1 shortcut or None."""

    def __init__(self, inputs: int, width: int, stride: int, downsamples: bool) -> None:
        super().__init__()
        middle = middle_width(width, max(EXPANDS))
        self.stride = stride
        self.conv1 = ConvNorm(inputs, middle)
        self.conv2 = ConvNorm(middle, middle, kernel=3, stride=stride)
        self.conv3 = ConvNorm(middle, width)
        self.downsample = ConvNorm(inputs, width) if downsamples else None


def middle_width(width: int, expand: float) -> int:
    """A bottleneck's middle channels."""
    return make_divisible(round(width * expand))


class OfaResNet50(nn.Module):
    """All weights of the supernet, with the names and shapes of the official ``OFAResNets``."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        middle = STEM_WIDTH // 2
        self.input_stem = nn.ModuleList(
            [
                ConvNorm(3, middle, kernel=3, stride=2),
                nn.ModuleDict({"conv": ConvNorm(middle, middle, kernel=3)}),
                ConvNorm(middle, STEM_WIDTH, kernel=3),
            ]
        )
        self.blocks = nn.ModuleList()
        inputs = STEM_WIDTH
        for stage, width in enumerate(STAGE_WIDTHS):
            for i in range(BASE_DEPTHS[stage] + max(EXTRA_DEPTHS)):
                stride = 2 if stage > 0 and i == 0 else 1
                self.blocks.append(Bottleneck(inputs, width, stride, downsamples=i == 0))
                inputs = width
        classifier = ElasticLinear(inputs, num_classes)
        self.classifier = nn.ModuleDict({"linear": nn.ModuleDict({"linear": classifier})})

    @property
    def stem(self) -> list[ConvNorm]:
        """The three convolutions of the stem; the middle one is residual."""
        first, middle, last = self.input_stem
        return [first, middle["conv"], last]  # type: ignore[list-item,index]


class Resize(Unit):
    """Images (B, 3, Y, X) -> (B, 3, size, size); images of that size pass."""

    def __init__(self) -> None:
        super().__init__("resize", decisions=("image_size",))

    def forward(self, state: State, choice: Choice) -> State:
        return _resize(state, int(choice["image_size"]))

    def extract(self, choice: Choice) -> nn.Module:
        return PlainResize(int(choice["image_size"]))


def _resize(images: Tensor, size: int) -> Tensor:
    if images.shape[-2:] == (size, size):
        return images
    # PyTorch has no antialiasing for bfloat16 on a CPU
    resized = F.interpolate(images.float(), (size, size), mode="bilinear", antialias=True)
    return resized.to(images.dtype)


class PlainResize(nn.Module):
    """Bilinear resizing with antialiasing, as torchvision's ``Resize`` does it."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.size = size

    def forward(self, images: Tensor) -> Tensor:
        return _resize(images, self.size)


class StemConv(Unit):
    """One 3x3 convolution of the stem.

    Args:
        name: the unit's name.
        part: its weights.
        decisions: see :class:`~paretopath.elastic.Unit`; the last one sets the output channels.
        residual: whether its input is added to its output.
        pools: whether a max-pool, stride 2, follows.
        requires: where it runs.
    """

    def __init__(
        self,
        name: str,
        part: ConvNorm,
        decisions: Sequence[str],
        *,
        residual: bool = False,
        pools: bool = False,
        requires: Condition | None = None,
    ) -> None:
        super().__init__(name, decisions=decisions, requires=requires)
        self.part = part
        self.residual = residual
        self.pools = pools

    def _outputs(self, choice: Choice) -> int:
        return channels(self.decisions[-1], choice)

    def forward(self, state: State, choice: Choice) -> State:
        out = F.relu(self.part(state, self._outputs(choice)))
        out = out + state if self.residual else out
        return F.max_pool2d(out, 3, stride=2, padding=1) if self.pools else out

    def extract(self, choice: Choice) -> nn.Module:
        inputs = channels("stem.mid_width", choice) if self.residual or self.pools else 3
        conv = nn.Sequential(*self.part.narrow(inputs, self._outputs(choice)), nn.ReLU())
        if self.residual:
            return Residual(conv)
        return conv.append(nn.MaxPool2d(3, stride=2, padding=1)) if self.pools else conv


class Residual(nn.Module):
    """A module's output plus its input."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.inner(x) + x
        return out


class BottleneckUnit(Unit):
    """One bottleneck of a stage: (B, C, Y, X) -> (B, K, Y / stride, X / stride).

    Args:
        stage: index of its stage.
        index: its index in the stage.
        part: its weights.
    """

    def __init__(self, stage: int, index: int, part: Bottleneck) -> None:
        name = f"stages.{stage}.blocks.{index}"
        self.width = f"stages.{stage}.width"
        before = f"stages.{stage - 1}.width" if stage > 0 else "stem.width"
        self.incoming = before if index == 0 else self.width
        widths = dict.fromkeys([self.incoming, self.width])
        super().__init__(
            name,
            decisions=("image_size", *widths, f"{name}.expand"),
            requires=reached(stage, index),
        )
        self.part = part

    def _channels(self, choice: Choice) -> tuple[int, int, int]:
        """Input, middle and output channels of a choice."""
        width = channels(self.width, choice)
        middle = middle_width(width, float(choice[self.decisions[-1]]))
        return channels(self.incoming, choice), middle, width

    def forward(self, state: State, choice: Choice) -> State:
        _, middle, width = self._channels(choice)
        part, x = self.part, state
        out = F.relu(part.conv1(x, middle))
        out = F.relu(part.conv2(out, middle))
        return F.relu(part.conv3(out, width) + self._shortcut(x, width))

    def _shortcut(self, x: Tensor, width: int) -> Tensor:
        part = self.part
        if part.downsample is None:
            return x
        if part.stride > 1:
            x = F.avg_pool2d(x, part.stride, part.stride, ceil_mode=True)
        out: Tensor = part.downsample(x, width)
        return out

    def extract(self, choice: Choice) -> nn.Module:
        inputs, middle, width = self._channels(choice)
        part = self.part
        shortcut = nn.Sequential()
        if part.downsample is not None:
            if part.stride > 1:
                shortcut.append(nn.AvgPool2d(part.stride, part.stride, ceil_mode=True))
            shortcut.extend(part.downsample.narrow(inputs, width))
        return PlainBottleneck(
            nn.Sequential(
                *part.conv1.narrow(inputs, middle),
                nn.ReLU(),
                *part.conv2.narrow(middle, middle),
                nn.ReLU(),
                *part.conv3.narrow(middle, width),
            ),
            shortcut,
        )


class PlainBottleneck(nn.Module):
    """Residual branch plus shortcut, then ReLU."""

    def __init__(self, branch: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.branch = branch
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(self.branch(x) + self.shortcut(x))


class Classifier(Unit):
    """Global average pooling and a linear layer: (B, C, Y, X) -> logits (B, num_classes)."""

    is_exit = True

    def __init__(self, part: ElasticLinear) -> None:
        super().__init__(
            "classifier", decisions=("image_size", f"stages.{len(BASE_DEPTHS) - 1}.width")
        )
        self.part = part

    def forward(self, state: State, choice: Choice) -> State:
        return self.part(state.mean((2, 3)))

    def extract(self, choice: Choice) -> nn.Module:
        inputs = channels(self.decisions[-1], choice)
        linear = self.part.narrow(inputs, self.part.out_features)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)
