"""A small family with batch norms, as a user's own space would be: ``module:Class`` in a recipe."""

from torch import nn

from paretopath.elastic import (
    Choice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLinear,
    ElasticSpace,
    State,
    Unit,
)
from paretopath.paths import Decision

WIDTHS = (4, 8, 16)


class Convolution(Unit):
    """A 3x3 convolution to as many channels as its decision says, its normalisation, ReLU."""

    def __init__(self, name: str, before: str | None, channels: int) -> None:
        decisions = (f"{name}.width",) if before is None else (f"{before}.width", f"{name}.width")
        super().__init__(name, decisions=decisions)
        self.conv = ElasticConv2d(channels, WIDTHS[-1], (3, 3), padding=1, bias=False)
        self.norm = ElasticBatchNorm2d(WIDTHS[-1])

    def forward(self, state: State, choice: Choice) -> State:
        return self.norm(self.conv(state, int(choice[self.decisions[-1]]))).relu()

    def extract(self, choice: Choice) -> nn.Module:
        width = int(choice[self.decisions[-1]])
        narrowed = int(choice[self.decisions[0]]) if len(self.decisions) == 2 else None
        channels = narrowed or self.conv.in_channels
        return nn.Sequential(self.conv.narrow(channels, width), self.norm.narrow(width), nn.ReLU())


class Classifier(Unit):
    """Mean over pixels, logits."""

    is_exit = True

    def __init__(self) -> None:
        super().__init__("head", decisions=("second.width",))
        self.linear = ElasticLinear(WIDTHS[-1], 10)

    def forward(self, state: State, choice: Choice) -> State:
        return self.linear(state.mean((2, 3)))

    def extract(self, choice: Choice) -> nn.Module:
        width = int(choice["second.width"])
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), self.linear.narrow(width, 10))


class NormalisedSpace(ElasticSpace):
    """Two convolutions of three widths each over 8x8 images."""

    batch_norm_per_path = True
    num_classes = 10

    def __init__(self) -> None:
        decisions = [Decision(f"{name}.width", WIDTHS) for name in ("first", "second")]
        super().__init__(decisions, input_shape=(1, 8, 8))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        return [
            Convolution("first", None, 1),
            Convolution("second", "first", WIDTHS[-1]),
            Classifier(),
        ]
