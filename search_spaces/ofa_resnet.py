"""Once-For-All ResNet-50: image size, depths, widths and bottlenecks of one elastic ResNet-50-D.

Cai et al., "Once-for-All: Train One Network and Specialize it for Efficient Deployment" (ICLR 2020,
arXiv 1908.09791). The space is that of github.com/mit-han-lab/once-for-all.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from pydantic import Field

from paretopath.elastic import ElasticSpace, Unit
from paretopath.elastic.options import Count, Listed, checked
from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import ABSENT, Condition, Decision, ExecutionPath
from paretopath.weights.files import load_reference
from search_spaces.ofa_published import read_configuration
from search_spaces.ofa_resnet_units import (
    BASE_DEPTHS,
    EXPANDS,
    EXTRA_DEPTHS,
    WIDTHS,
    BottleneckUnit,
    Classifier,
    OfaResNet50,
    Resize,
    StemConv,
    official_name,
    reached,
)

# The published choices (tutorial/ofa_resnet50_example.ipynb, ofa/model_zoo.py).
RESOLUTIONS = (128, 144, 160, 176, 192, 224, 240, 256)
STEM_DEPTHS = (0, 2)

Resolutions = Annotated[tuple[Annotated[int, Field(ge=32)], ...], Listed, Field(min_length=1)]

# 8 resolutions, 2 stems, 6 x 3 widths, 18 x 3 ratios (ofa/nas/accuracy_predictor/arch_encoder.py).
PREDICTOR_INPUTS = 82


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

    batch_norm_per_path = True  # as the authors do: ofa.utils.set_running_statistics

    @checked
    def __init__(
        self, *, resolutions: Resolutions = RESOLUTIONS, num_classes: Count = 1000
    ) -> None:
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

    def parse(self, content: Mapping[str, Any]) -> ExecutionPath:
        """A path from decisions or from a network's published configuration.

        Args:
            content: decisions, or a specialised network's ``net.config`` with the key
                ``image_size`` of its ``run.config`` added.

        Raises:
            InvalidPathError: no path of the space.
        """
        if "input_stem" in content:
            return self.canonical(read_configuration(content))
        return super().parse(content)

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        """Resize, stem, blocks, classifier; see :meth:`paretopath.elastic.ElasticSpace.units`."""
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
        decisions.append(Decision(f"{name}.blocks.{i}.expand", EXPANDS, reached(stage, i)))
    return decisions
