"""The chain of units around the modules of one of mmdet's two-stage detectors."""

from collections.abc import Sequence
from typing import Any

from torch import nn

from paretopath.elastic import Unit
from paretopath.errors import InvalidValueError
from paretopath.paths import Decision, SearchSpace, Value
from search_spaces.blocks.spans import Group, Span
from search_spaces.detr.pieces import Kept, Piece, group
from search_spaces.detr.region_heads import RegionHead
from search_spaces.detr.regions import PROPOSALS, Propose, Pyramid
from search_spaces.widths import channels, head_counts

WIDTHS = ("neck.keep_ratio", "rpn.keep_ratio", "head.keep_ratio")


def decisions(
    detector: Any, width_ratios: tuple[float, ...], proposal_ratios: tuple[float, ...]
) -> list[Decision]:
    """Those behind the backbone.

    Args:
        detector: mmdet's.
        width_ratios: shares of the channels inside the pyramid, the region proposal network and the
            head.
        proposal_ratios: shares of the regions that may be kept.
    """
    _check(detector)
    widths = [Decision(n, width_ratios) for n in WIDTHS] if len(width_ratios) > 1 else []
    counts = head_counts(int(detector.rpn_head.test_cfg.max_per_img), proposal_ratios)
    return [*widths, *([Decision(PROPOSALS, counts)] if len(counts) > 1 else [])]


def _check(detector: Any) -> None:
    """InvalidValueError for parts that have no form here."""
    rules = {
        "neck": (detector.neck, "FPN"),
        "rpn_head": (detector.rpn_head, "RPNHead"),
        "roi_head": (detector.roi_head, "StandardRoIHead"),
        "roi_head.bbox_head": (detector.roi_head.bbox_head, "Shared2FCBBoxHead"),
    }
    for name, (part, wanted) in rules.items():
        if type(part).__name__ != wanted:
            raise InvalidValueError(
                f"config: {name} of a two-stage detector must be {wanted}, "
                f"but got {type(part).__name__}"
            )
    if detector.neck.add_extra_convs:
        raise InvalidValueError("config: neck.add_extra_convs must be false, but got true")


def units(
    space: SearchSpace,
    detector: Any,
    around: Sequence[str],
    widths: Kept,
    entries: Sequence[int],
    divisor: int,
) -> list[Unit]:
    """Pyramid, region proposals, head.

    Args:
        space: whose decisions say what they may do.
        detector: mmdet's, its modules are taken.
        around: decisions on which the maps' sizes depend.
        widths: by decision, the channels that the backbone's maps come with.
        entries: the channels of each of these at its fullest, where decisions narrow them.
        divisor: of the channels that are kept.
    """
    shaped: dict[str, dict[Value, dict[str, int]]] = {name: {} for name in around}
    counts: dict[Value, dict[str, int]] = {}
    if PROPOSALS in space.positions:
        counts = {count: {PROPOSALS: int(count)} for count in space[PROPOSALS].values}
    kept_regions = {PROPOSALS: counts} if counts else {}
    pyramid = Pyramid(detector.neck)
    propose = Propose(detector.rpn_head, detector.train_cfg.rpn_proposal)
    head = RegionHead(detector.roi_head, detector.rpn_head)

    def kept(name: str, *groups: Group) -> Kept:
        ratios = space[name].values if name in space.positions else ()
        found = {r: {g.name: channels(g.entries, r, divisor) for g in groups} for r in ratios}
        return {**shaped, **({name: found} if found else {})}

    inside = _pyramids(detector.neck)
    rpn_width = detector.rpn_head.feat_channels
    of_rpn = Group(
        "rpn",
        rpn_width,
        1,
        ("rpn.rpn_conv",),
        tuple(Span(f"rpn.{name}", 0, rpn_width) for name in ("rpn_cls", "rpn_reg")),
    )
    of_head = _heads(head.head)
    neck = Piece(
        "neck",
        pyramid,
        groups=[inside, *_levels(entries)],
        kept={**kept(WIDTHS[0], inside), **widths},
        lands=[span.layer for span in inside.readers],
    )
    rpn = Piece(
        "rpn",
        propose,
        groups=[of_rpn],
        kept={**kept(WIDTHS[1], of_rpn), **kept_regions},
        lands=[span.layer for span in of_rpn.readers],
    )
    regions = {**kept(WIDTHS[2], *of_head), **{name: {} for name in kept_regions}}
    return [neck, rpn, Piece("head", head, groups=of_head, kept=regions, is_exit=True)]


def _pyramids(neck: Any) -> Group:
    """The channels between a pyramid's lateral and its last convolutions."""
    count, width = len(neck.lateral_convs), neck.out_channels
    makers = tuple(f"neck.lateral_convs.{i}.conv" for i in range(count))
    readers = tuple(Span(f"neck.fpn_convs.{i}.conv", 0, width) for i in range(count))
    return Group("pyramid", width, 1, makers, readers)


def _levels(entries: Sequence[int]) -> list[Group]:
    """The channels of the maps that lateral convolutions read."""
    return [
        Group(f"level.{i}", size, 1, (), (Span(f"neck.lateral_convs.{i}.conv", 0, size),))
        for i, size in enumerate(entries)
    ]


def _heads(head: nn.Module) -> list[Group]:
    """The hidden channels of the two layers that all regions' classes and boxes share."""
    first, second = head.shared_fcs  # type: ignore[misc]
    readers = tuple(
        Span(f"head.{name}", 0, second.out_features)  # type: ignore[arg-type]
        for name in ("fc_cls", "fc_reg")
    )
    return [
        group("fc1", first.out_features, 1, ["head.shared_fcs.0"], "head.shared_fcs.1"),  # type: ignore[arg-type]
        Group("fc2", second.out_features, 1, ("head.shared_fcs.1",), readers),  # type: ignore[arg-type]
    ]
