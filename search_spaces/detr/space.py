"""DETR and its relatives as a search space, from mmdet's configs.

Carion et al., "End-to-End Object Detection with Transformers" (ECCV 2020, arXiv 2005.12872); Meng
et al., Conditional DETR (arXiv 2108.06152); Liu et al., DAB-DETR (arXiv 2201.12329); Zhu et al.,
Deformable DETR (arXiv 2010.04159); Zhang et al., DINO (arXiv 2203.03605); Ren et al., Faster R-CNN
(arXiv 1506.01497); He et al., Mask R-CNN (arXiv 1703.06870), its boxes. The models are mmdet's.
"""

from collections.abc import Mapping
from typing import Any, Literal

import torch

from paretopath.elastic import ElasticSpace, Unit
from paretopath.elastic.options import Count, Counts, Names, Pixels, Shares, checked
from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import Condition, Decision
from paretopath.weights.files import load_reference
from search_spaces.detr.configuration import TWO_STAGE, detector, read, with_classes
from search_spaces.detr.library import mmdet
from search_spaces.widths import fractions, head_counts, skippable_blocks

_OF_CLASSES = (
    "bbox_head.fc_cls.",
    "bbox_head.cls_branches.",
    "dn_query_generator.",
    "roi_head.bbox_head.fc_cls.",
    "roi_head.bbox_head.fc_reg.",
    "roi_head.mask_head.conv_logits.",
)
"""Parameters whose shapes depend on how many classes there are."""


class DetrSpace(ElasticSpace):
    """The paths of a detection transformer, or of a two-stage detector.

    Decisions, for a backbone's block B, encoder layer E and decoder layer D:

    - ``input_scale``: share of the images' height and width that the detector works on;
    - ``backbone.B.run``, ``backbone.B.keep_ratio``: see
      :class:`~search_spaces.blocks.space.BlocksSpace`; ``backbone.B.heads``, of a Swin transformer:
      attention heads kept; or, prefixed likewise, those of
      :class:`~search_spaces.ofa_resnet.OfaResNet50Space` but for ``image_size``;
    - ``encoder.E.run``: whether the layer runs; ``encoder.E.heads``: attention heads kept;
      ``encoder.E.points``: the points of each map at which a head of deformable attention looks,
      the first ones; ``encoder.E.ffn_ratio``: share of the feed-forward network's hidden channels
      kept;
    - ``exit``: the decoder layer, from 1, behind which boxes are told;
    - ``queries``: how many are kept, best first;
    - ``decoder.D.heads``, ``decoder.D.points`` (both of the attention to tokens),
      ``decoder.D.ffn_ratio``: as of encoders;
    - of two-stage detectors, ``neck.keep_ratio``, ``rpn.keep_ratio``, ``head.keep_ratio``: shares
      of the channels inside each; ``proposals``: how many regions are kept, best first.

    Args:
        config: a config's name in mmdet, such as ``dino-4scale_r50_8xb2-12e_coco``, or a file.
        trust_config: whether a file may be read: a config is code, which runs then.
        arguments: of the config's ``model``, which override it, key by key.
        image_size: height and width of the padded images in pixels, or one number for both.
        num_classes: of the objects; the config's by default.
        backbone: ``as_configured``, or ``ofa_resnet50``: Once-For-All's subnets in its place.
        skippable: units that a path may skip: ``all``, ``none``, or names such as ``encoder.0``
            and ``backbone.layer3.1``.
        keep_ratios: shares, in (0, 1], of the channels inside a backbone's block.
        divisor: channels that are kept, there and elsewhere, are a multiple of it, where there are
            enough.
        head_ratios: shares of the attention heads that a layer may keep; rounded up.
        point_ratios: shares of the sampling points that a head may keep; rounded up.
        ffn_ratios: shares of the hidden channels that a feed-forward network may keep.
        query_ratios: shares of the queries, or regions, that may be kept; rounded up.
        exits: decoder layers, from 1, behind which a path may end; all by default, the last always.
        input_scales: values of ``input_scale``; of transformers alone.
        width_ratios: shares of the channels inside the pyramid, the region proposals and the head
            of a two-stage detector.

    Raises:
        InvalidValueError: an option outside its range, or a config that can't be searched.
        MissingExtraError: mmdet is not installed.
    """

    @checked
    def __init__(
        self,
        *,
        config: str,
        trust_config: bool = False,
        arguments: Mapping[str, Any] | None = None,
        image_size: Pixels = (800, 1216),
        num_classes: Count | None = None,
        backbone: Literal["as_configured", "ofa_resnet50"] = "as_configured",
        skippable: Names | str = "all",
        keep_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        divisor: Count = 8,
        head_ratios: Shares = (0.5, 1.0),
        point_ratios: Shares = (0.25, 0.5, 1.0),
        ffn_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        query_ratios: Shares = (0.25, 0.5, 1.0),
        exits: Counts | None = None,
        input_scales: Shares = (1.0,),
        width_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
    ) -> None:
        mmdet()
        from search_spaces.detr.backbones import Backbone

        model = read(config, arguments or {}, trust=trust_config)
        self.model = with_classes(model, num_classes)
        self.divisor = divisor
        with torch.device("meta"):
            example = detector(self.model)
        self.backbone = Backbone.of(
            self.model["backbone"],
            kind=None if backbone == "as_configured" else backbone,
            keep_ratios=fractions("keep_ratios", keep_ratios),
            head_ratios=fractions("head_ratios", head_ratios),
            divisor=divisor,
        )
        self.is_two_stage = self.model["type"] in TWO_STAGE
        layers = 1 if self.is_two_stage else len(example.decoder.layers)
        self.exits = _exits(exits, layers)
        encoders = 0 if self.is_two_stage else len(example.encoder.layers)
        self.encoders = [f"encoder.{i}" for i in range(encoders)]
        self.skippable = skippable_blocks(skippable, [*self.backbone.skippable, *self.encoders])
        self.ratios = {
            "heads": fractions("head_ratios", head_ratios),
            "points": fractions("point_ratios", point_ratios),
            "ffn": fractions("ffn_ratios", ffn_ratios),
            "queries": fractions("query_ratios", query_ratios),
            "scales": fractions("input_scales", input_scales),
            "widths": fractions("width_ratios", width_ratios),
        }
        if self.is_two_stage and len(self.ratios["scales"]) > 1:
            raise InvalidValueError(
                "input_scales must be 1.0 alone for a two-stage detector, whose boxes are in "
                f"pixels, but got {list(self.ratios['scales'])}"
            )
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        shape = (int(self.model["backbone"].get("in_channels", 3)), int(height), int(width))
        super().__init__(self._decisions(example), input_shape=shape)
        head = example.roi_head.bbox_head if self.is_two_stage else example.bbox_head
        self.num_classes = int(head.num_classes)
        self.batch_norm_per_path = self.backbone.measures_norms

    def _decisions(self, example: Any) -> list[Decision]:
        decisions = []
        if len(self.ratios["scales"]) > 1:
            decisions.append(Decision("input_scale", self.ratios["scales"]))
        decisions += self.backbone.decisions(self.skippable)
        if self.is_two_stage:
            from search_spaces.detr import two_stage

            of_regions = self.ratios["widths"], self.ratios["queries"]
            return [*decisions, *two_stage.decisions(example, *of_regions)]
        for name, layer in zip(self.encoders, example.encoder.layers, strict=True):
            runs = Condition(f"{name}.run", (True,)) if name in self.skippable else None
            if runs is not None:
                decisions.append(Decision(f"{name}.run", (False, True)))
            decisions += self._of_layer(name, layer.self_attn, runs)
        if len(self.exits) > 1:
            decisions.append(Decision("exit", self.exits))
        queries = head_counts(example.num_queries, self.ratios["queries"])
        if len(queries) > 1:
            decisions.append(Decision("queries", queries))
        for i, layer in enumerate(example.decoder.layers[: max(self.exits)]):
            beyond = tuple(e for e in self.exits if e > i)
            runs = Condition("exit", beyond) if len(beyond) < len(self.exits) else None
            decisions += self._of_layer(f"decoder.{i}", layer.cross_attn, runs)
        return decisions

    def _of_layer(self, name: str, attention: Any, runs: Condition | None) -> list[Decision]:
        heads = head_counts(attention.num_heads, self.ratios["heads"])
        is_elastic = hasattr(attention, "sampling_offsets") or hasattr(attention, "attn")
        decisions = []
        if is_elastic and len(heads) > 1:
            decisions.append(Decision(f"{name}.heads", heads, runs))
        points = head_counts(getattr(attention, "num_points", 1), self.ratios["points"])
        if len(points) > 1:
            decisions.append(Decision(f"{name}.points", points, runs))
        if len(self.ratios["ffn"]) > 1:
            decisions.append(Decision(f"{name}.ffn_ratio", self.ratios["ffn"], runs))
        return decisions

    def reference(self) -> Any:
        """mmdet's detector with new random weights, in evaluation mode."""
        return detector(self.model)

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        """See :meth:`ElasticSpace.units`."""
        model = self.reference()
        if checkpoint is not None:
            load_reference(model, checkpoint, replaceable=_OF_CLASSES)
        return self.units_of(model)

    def units_of(self, model: Any) -> list[Unit]:
        """The chain of units around the modules of a detector."""
        from search_spaces.detr.backbones import resized_maps
        from search_spaces.detr.chain import Chain
        from search_spaces.resizing import SCALE, Resize

        around = (SCALE,) if SCALE in self.positions else ()
        widths = self.backbone.widths(), self.backbone.level_entries()
        if self.is_two_stage:
            from search_spaces.detr import two_stage

            backbone = self.backbone.units(model.backbone, self.skippable, around)
            return [*backbone, *two_stage.units(self, model, around, *widths, self.divisor)]
        chain = Chain(self, model, self.exits, around, self.divisor)
        return [
            *([Resize("resize", resized_maps)] if around else []),
            *self.backbone.units(model.backbone, self.skippable, around),
            chain.neck(*widths),
            *chain.encoder(),
            chain.queries(),
            *chain.decoder(),
        ]


def _exits(exits: tuple[int, ...] | None, layers: int) -> tuple[int, ...]:
    """Decoder layers, ascending, the last among them."""
    for layer in exits or ():
        if layer > layers:
            raise InvalidValueError(
                f"exits must be decoder layers from 1 to {layers}, but got {layer}; "
                f"{nearest(layer, range(1, layers + 1))}"
            )
    return tuple(sorted({*(exits or range(1, layers + 1)), layers}))
