"""Backbones of detectors: other spaces' units, which work on the maps of a detector's state."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import nn

from paretopath.elastic import Choice, ElasticSpace, State, Unit
from paretopath.paths import Decision, Value
from search_spaces.blocks.space import BlocksSpace
from search_spaces.detr.pieces import Inside
from search_spaces.detr.states import Maps
from search_spaces.detr.swin import SwinBackbone
from search_spaces.ofa_resnet import OfaResNet50Space
from search_spaces.ofa_resnet_units import STAGE_WIDTHS, WIDTHS, channels
from search_spaces.resizing import resized
from search_spaces.widths import head_counts

PREFIX = "backbone."
OFA = "ofa_resnet50"

_PLANNED_ON = 64
"""Pixels: what blocks may do does not depend on the size of their maps."""


@dataclass(frozen=True)
class Backbone:
    """A space whose units are a detector's backbone.

    Attributes:
        space: the other space.
        outputs: the indices of the stages whose maps the neck takes.
        learns_norms: whether batch normalisations follow the images that are trained on.
    """

    space: ElasticSpace
    outputs: tuple[int, ...]
    learns_norms: bool

    @classmethod
    def of(
        cls,
        config: Mapping[str, Any],
        *,
        kind: str | None,
        keep_ratios: tuple[float, ...],
        head_ratios: tuple[float, ...],
        divisor: int,
    ) -> "Backbone | SwinBackbone":
        """The backbone of a detector's config.

        Args:
            config: mmdet's, of the backbone.
            kind: ``ofa_resnet50`` in its place; None for the config's own.
            keep_ratios, head_ratios, divisor: see :class:`~search_spaces.blocks.space.BlocksSpace`.
        """
        outputs = tuple(config.get("out_indices", (0, 1, 2, 3)))
        learns = not config.get("norm_eval", False)
        if kind == OFA:
            return cls(OfaResNet50Space(resolutions=(224,)), outputs, learns)
        if config.get("type") == "SwinTransformer":
            heads = tuple(head_counts(heads, head_ratios) for heads in config["num_heads"])
            return SwinBackbone(tuple(config["depths"]), heads, keep_ratios, divisor)
        inner = BlocksSpace(
            model="search_spaces.detr.library:build",
            arguments={"config": dict(config)},
            input_shape=(int(config.get("in_channels", 3)), _PLANNED_ON, _PLANNED_ON),
            keep_ratios=keep_ratios,
            head_ratios=head_ratios,
            divisor=divisor,
        )
        return cls(inner, outputs, learns)

    @property
    def measures_norms(self) -> bool:
        """Whether paths need batch-norm statistics of their own."""
        return self.space.batch_norm_per_path

    @property
    def is_ofa(self) -> bool:
        """Whether its subnets are Once-For-All's."""
        return isinstance(self.space, OfaResNet50Space)

    @property
    def skippable(self) -> list[str]:
        """The units that can be left out, by their names in the detector."""
        own = self.space.skippable if isinstance(self.space, BlocksSpace) else frozenset()
        return [f"{PREFIX}{name}" for name in sorted(own)]

    def decisions(self, skipped: frozenset[str]) -> list[Decision]:
        """Its decisions, by their names in the detector.

        Args:
            skipped: the units that a path may leave out.
        """
        found = []
        for decision in self.space.decisions:
            name = f"{PREFIX}{decision.name}"
            requires = decision.requires
            if decision.name == "image_size":  # the detector's own
                continue
            if name.endswith(".run") and name.removesuffix(".run") not in skipped:
                continue
            if requires is not None:
                requires = replace(requires, decision=f"{PREFIX}{requires.decision}")
                if requires.decision.removesuffix(".run") not in skipped and not self.is_ofa:
                    requires = None
            found.append(replace(decision, name=name, requires=requires))
        return found

    def widths(self) -> dict[str, dict[Value, dict[str, int]]]:
        """By decision: how many channels of the neck's levels are there."""
        if not self.is_ofa:
            return {}
        return {
            f"{PREFIX}stages.{stage}.width": {
                width: {
                    _level(level): channels(
                        f"stages.{stage}.width", {f"stages.{stage}.width": width}
                    )
                }
                for width in WIDTHS
            }
            for level, stage in enumerate(self.outputs)
        }

    def units(
        self, module: nn.Module, skipped: frozenset[str], around: Sequence[str]
    ) -> list[Unit]:
        """Its units.

        Args:
            module: mmdet's backbone, whose modules they take.
            skipped: see :meth:`decisions`.
            around: decisions on which the shape of the images depends.
        """
        if self.is_ofa:
            return self._of_ofa(around)
        assert isinstance(self.space, BlocksSpace)
        units: list[Unit] = []
        for inner in self.space.units_of(module):
            if f"{PREFIX}{inner.name}" not in skipped:
                inner.requires = None
            units.append(Inside(PREFIX, inner, around=around, learns_norms=self.learns_norms))
        return units

    def _of_ofa(self, around: Sequence[str]) -> list[Unit]:
        units: list[Unit] = []
        shaping = list(around)
        _resize, *inners, _classifier = self.space.units()
        for index, inner in enumerate(inners):
            inner.decisions = tuple(n for n in inner.decisions if n != "image_size")
            units.append(Inside(PREFIX, inner, around=shaping, learns_norms=self.learns_norms))
            stage, after = (
                _stage(u.name) for u in (inner, (*inners, None)[index + 1] or _classifier)
            )
            if stage is not None and stage != after and stage in self.outputs:
                shaping = [*shaping, f"{PREFIX}stages.{stage}.width"]
                units.append(Keep(f"{PREFIX}stages.{stage}.output", shaping))
        return units

    def level_entries(self) -> list[int]:
        """The channels of each map that the neck takes, where a decision narrows it."""
        return [STAGE_WIDTHS[stage] for stage in self.outputs] if self.is_ofa else []


def _level(index: int) -> str:
    return f"level.{index}"


def _stage(name: str) -> int | None:
    return int(name.split(".")[1]) if name.startswith("stages.") else None


class Keep(Unit):
    """The map of a stage is kept for the neck, and goes on."""

    def __init__(self, name: str, decisions: Sequence[str]) -> None:
        super().__init__(name, decisions=decisions)

    def forward(self, state: State, choice: Choice) -> State:
        return _kept(state)

    def extract(self, choice: Choice) -> nn.Module:
        return PlainKeep()


class PlainKeep(nn.Module):
    """See :class:`Keep`."""

    def forward(self, state: State) -> State:
        return _kept(state)


def _kept(maps: Maps) -> Maps:
    return replace(maps, kept=(*maps.kept, maps.x))


def resized_maps(state: State, scale: float) -> Maps:
    """Images at a share of their height and width; boxes stay in pixels of the images given."""
    maps = Maps.of(state)
    return replace(maps, x=resized(maps.x, scale))
