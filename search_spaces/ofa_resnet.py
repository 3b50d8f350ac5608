"""Once-For-All ResNet-50: image size, depths, widths and bottlenecks of one elastic ResNet-50-D.

Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment" (ICLR 2020,
arXiv 1908.09791). The space, its numbers of channels and the names of its weights are those of
``OFAResNets`` in github.com/mit-han-lab/once-for-all (MIT licence).
"""

from collections.abc import Container, Sequence

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor, nn

from pipeline.elastic import (
    Choice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLinear,
    ElasticSpace,
    State,
    Unit,
)
from pipeline.errors import InvalidValueError, nearest
from pipeline.paths import ABSENT, Condition, Decision
from pipeline.weights import load_reference

# The published space (ofa/model_zoo.py, tutorial/ofa_resnet50_example.ipynb, networks/resnets.py).
RESOLUTIONS = (128, 144, 160, 176, 192, 224, 240, 256)
STEM_DEPTHS = (0, 2)
EXTRA_DEPTHS = (0, 1, 2)
WIDTHS = (0.65, 0.8, 1.0)
EXPANDS = (0.2, 0.25, 0.35)
BASE_DEPTHS = (2, 2, 4, 2)
STAGE_WIDTHS = (256, 512, 1024, 2048)
STEM_WIDTH = 64

# 8 resolutions, 2 stems, 6 x 3 widths, 18 x 3 ratios (ofa/nas/accuracy_predictor/arch_encoder.py).
PREDICTOR_INPUTS = 82


def make_divisible(channels: float, divisor: int = 8) -> int:
    """The multiple of ``divisor`` nearest to ``channels``, the next where that loses over a tenth.

    From TensorFlow's MobileNet, as Once-For-All uses it (ofa/utils/pytorch_modules.py).
    """
    rounded = max(divisor, int(channels + divisor / 2) // divisor * divisor)
    return rounded + divisor if rounded < 0.9 * channels else rounded


class OfaResNet50Space(ElasticSpace):
    """The sub-networks of the Once-For-All ResNet-50.

    Decisions: ``image_size`` (pixels; the first unit resizes), ``stem.depth`` (2: the residual stem
    convolution is there), ``stem.mid_width`` and ``stem.width`` (multipliers of 32 and of 64
    channels), and for each of four stages S ``stages.S.depth`` (blocks beyond 2, 2, 4, 2),
    ``stages.S.width`` (multiplier of 256, 512, 1024, 2048 channels) and
    ``stages.S.blocks.I.expand`` (a bottleneck's middle channels over its output channels).

    ``stem.mid_width`` 0.65 and 0.8 both round to 24 channels and are one network: canonical paths
    hold 0.65. The published space counts both; see :attr:`published_encodings`.

    Args:
        resolutions: pixels, each at least 32; the largest is the model's input size.
        num_classes: outputs of the classifier, at least 1.

    Raises:
        InvalidValueError: an option outside its range.
    """

    def __init__(
        self, *, resolutions: Sequence[int] = RESOLUTIONS, num_classes: int = 1000
    ) -> None:
        if not resolutions or any(type(size) is not int or size < 32 for size in resolutions):
            raise InvalidValueError(
                "resolutions must be whole numbers of pixels of at least 32, "
                f"but got {list(resolutions)}"
            )
        if type(num_classes) is not int or num_classes < 1:
            raise InvalidValueError(f"num_classes must be at least 1, but got {num_classes!r}")
        self.num_classes = num_classes
        decisions = [
            Decision("image_size", tuple(sorted(set(resolutions)))),
            Decision("stem.depth", STEM_DEPTHS),
            Decision("stem.mid_width", WIDTHS, aliases={0.8: 0.65}),
            Decision("stem.width", WIDTHS),
        ]
        for stage in range(len(BASE_DEPTHS)):
            decisions += _stage_decisions(stage)
        super().__init__(decisions, input_shape=(3, max(resolutions), max(resolutions)))

    @property
    def published_encodings(self) -> int:
        """How many encodings the published space counts: 19,671,318,375,696 with all resolutions.

        It tells ``stem.mid_width`` 0.65 from 0.8, which are one network; :attr:`size` is two thirds
        of it.
        """
        middle = self["stem.mid_width"]
        return self.size * len(middle.values) // len(middle.distinct)

    def encode_for_predictor(self, matrix: npt.ArrayLike) -> npt.NDArray[np.float32]:
        """The inputs (n_paths, 82) of the published accuracy predictor, vectorised over paths.

        One-hot: the resolution among the published eight, the stem's depth (index 1: its residual
        block is there), six widths, 18 expand ratios (all zero where the block is absent).

        Args:
            matrix: canonical rows of :meth:`encode`, (n_paths, n_decisions).

        Raises:
            InvalidValueError: the space has a resolution for which the predictor has no input.
        """
        rows = np.asarray(matrix)
        features = np.zeros((len(rows), PREDICTOR_INPUTS), dtype=np.float32)
        for index, columns in self._predictor_columns().items():
            present = np.flatnonzero(rows[:, index] != ABSENT)
            features[present, columns[rows[present, index]]] = 1
        return features

    def _predictor_columns(self) -> dict[int, npt.NDArray[np.int64]]:
        """By position of each decision that the predictor sees: the input that each value sets."""
        sizes = self["image_size"].values
        foreign = [size for size in sizes if size not in RESOLUTIONS]
        if foreign:
            raise InvalidValueError(
                f"the published accuracy predictor can't take images of {foreign[0]} pixels; "
                f"{nearest(foreign[0], RESOLUTIONS)}"
            )
        order = ["image_size", "stem.depth", "stem.mid_width", "stem.width"]
        order += [f"stages.{stage}.width" for stage in range(len(BASE_DEPTHS))]
        order += [decision.name for decision in self.decisions if decision.name.endswith(".expand")]
        columns, start = {}, 0
        for name in order:
            values = self[name].values
            published = RESOLUTIONS if name == "image_size" else values
            columns[self.positions[name]] = start + np.array([published.index(v) for v in values])
            start += len(published)
        assert start == PREDICTOR_INPUTS
        return columns

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        """Resize, stem, blocks, classifier; see :meth:`pipeline.elastic.ElasticSpace.units`."""
        net = OfaResNet50(self.num_classes)
        if checkpoint is not None:
            own = net.state_dict()
            load_reference(
                net,
                checkpoint,
                replaceable=("classifier.",),
                rename=lambda name: official_name(name, own),
            )
        image, middle, width = "image_size", "stem.mid_width", "stem.width"
        present = Condition("stem.depth", (max(STEM_DEPTHS),))
        first, second, third = net.stem
        units: list[Unit] = [
            Resize(),
            StemConv("stem.0", first, (image, middle)),
            StemConv("stem.1", second, (image, middle), residual=True, requires=present),
            StemConv("stem.2", third, (image, middle, width), pools=True),
        ]
        blocks = iter(net.blocks)
        for stage, base in enumerate(BASE_DEPTHS):
            for i in range(base + max(EXTRA_DEPTHS)):
                units.append(BottleneckUnit(stage, i, next(blocks)))  # type: ignore[arg-type]
        return [*units, Classifier(net.classifier["linear"]["linear"])]  # type: ignore[index,arg-type]


def _stage_decisions(stage: int) -> list[Decision]:
    name, base = f"stages.{stage}", BASE_DEPTHS[stage]
    decisions = [Decision(f"{name}.depth", EXTRA_DEPTHS), Decision(f"{name}.width", WIDTHS)]
    for i in range(base + max(EXTRA_DEPTHS)):
        decisions.append(Decision(f"{name}.blocks.{i}.expand", EXPANDS, _reached(stage, i)))
    return decisions


def _reached(stage: int, block: int) -> Condition | None:
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
    return F.interpolate(images, (size, size), mode="bilinear", antialias=True)


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
        decisions: see :class:`~pipeline.elastic.Unit`; the last one sets the output channels.
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
            requires=_reached(stage, index),
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


def channels(decision: str, choice: Choice) -> int:
    """The channels to which a width decision's multiplier rounds."""
    multiplier = float(choice[decision])
    if decision.startswith("stages."):
        return make_divisible(STAGE_WIDTHS[int(decision.split(".")[1])] * multiplier)
    width = make_divisible(STEM_WIDTH * multiplier)
    return make_divisible(width // 2) if decision == "stem.mid_width" else width
