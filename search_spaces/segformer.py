"""SegFormer: blocks skipped, Mix-FFNs and attention narrowed, the decoder narrowed or rewritten.

Xie et al., "SegFormer" (NeurIPS 2021, arXiv 2105.15203); the model is transformers'
``SegformerForSemanticSegmentation``. The state is the tuple of feature maps so far; its last entry
is being worked on.
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from paretopath.elastic import ElasticModel, Unit
from paretopath.elastic.options import (
    Count,
    Names,
    Pixels,
    Shares,
    checked,
    checked_arguments,
    tried,
)
from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import Condition, Decision
from search_spaces.pretrained import BASE_FIELDS, PretrainedSpace, plain_state
from search_spaces.segformer_decoder import FORMS, GATHERED, Decoder
from search_spaces.segformer_encoder import Block, Embed, Norm
from search_spaces.widths import (
    decoder_forms,
    fractions,
    head_counts,
    multiple_of_heads,
    skippable_blocks,
)

# Table 6 of the paper: depths, hidden sizes, decoder width
_VARIANTS: Mapping[str, tuple[tuple[int, ...], tuple[int, ...], int]] = {
    "b0": ((2, 2, 2, 2), (32, 64, 160, 256), 256),
    "b1": ((2, 2, 2, 2), (64, 128, 320, 512), 256),
    "b2": ((3, 4, 6, 3), (64, 128, 320, 512), 768),
    "b3": ((3, 4, 18, 3), (64, 128, 320, 512), 768),
    "b4": ((3, 8, 27, 3), (64, 128, 320, 512), 768),
    "b5": ((3, 6, 40, 3), (64, 128, 320, 512), 768),
}

_BY_STAGE = (
    *("depths", "hidden_sizes", "num_attention_heads"),
    *("sr_ratios", "patch_sizes", "strides", "mlp_ratios"),
)


class SegformerSpace(PretrainedSpace):
    """The paths of a SegFormer.

    Decisions, for stage S, block B and branch I (the stage whose features it takes):

    - ``stages.S.blocks.B.run``: whether the block runs; a bypassed one is the identity;
    - ``stages.S.blocks.B.heads``: attention heads kept, with their queries, keys and values;
    - ``stages.S.blocks.B.mlp_ratio``: share of the Mix-FFN's hidden channels kept, with their
      depthwise filters;
    - ``decoder.form``: ``as_published``, or the same function with the linear maps of each branch
      multiplied out: ``merged``, applied before upsampling, or ``gathered``, applied to all
      features together after they are upsampled;
    - ``decoder.branches.I.keep``: share of its channels that a branch brings to the fuse
      convolution, where the form is as published (otherwise they are multiplied out);
    - ``decoder.width``: share of the fuse convolution's output channels.

    Args:
        variant: ``b0`` to ``b5``; None to construct from ``arguments`` alone.
        arguments: fields of transformers' ``SegformerConfig`` (``depths``, ``hidden_sizes``,
            ``decoder_hidden_size`` …); they override the variant's.
        image_size: height and width in pixels, or one number for both.
        num_classes: of the segmentation.
        skippable: which blocks a path may skip: ``all``, ``none``, or names such as
            ``stages.2.blocks.1``.
        head_ratios: shares, in (0, 1], of the attention heads that a block may keep; rounded up to
            whole heads.
        mlp_ratios: shares, in (0, 1], of the hidden channels that a Mix-FFN may keep.
        keep_ratios: values of ``decoder.branches.I.keep``, in (0, 1].
        divisor: channels that are kept are a multiple of it, where there are enough.
        width_ratios: values of ``decoder.width``, in (0, 1].
        forms: values of ``decoder.form``; ``as_published`` must be among them. ``gathered`` is left
            out where the features have more channels than the branches.

    Raises:
        InvalidValueError: an option outside its range.
    """

    original = SegformerForSemanticSegmentation
    replaceable = ("decode_head.classifier.",)
    heads = ("decode_head.",)
    ignored = ("classifier.",)  # of an encoder that was trained on whole images

    @checked
    def __init__(
        self,
        *,
        variant: str | None = "b0",
        arguments: Mapping[str, Any] | None = None,
        image_size: Pixels = 512,
        num_classes: Count = 150,
        skippable: Names | str = "all",
        head_ratios: Shares = (0.5, 1.0),
        mlp_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        keep_ratios: Shares = (0.125, 0.25, 0.5, 1.0),
        width_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        divisor: Count = 8,
        forms: Names = FORMS,
    ) -> None:
        self.config = _config(variant, arguments or {}, num_classes)
        self.mlp_ratios = fractions("mlp_ratios", mlp_ratios)
        self.head_ratios = fractions("head_ratios", head_ratios)
        self.keep_ratios = fractions("keep_ratios", keep_ratios)
        self.width_ratios = fractions("width_ratios", width_ratios)
        self.divisor = divisor
        self.forms = decoder_forms(forms, FORMS)
        if (
            sum(self.config.hidden_sizes)
            >= len(self.config.depths) * self.config.decoder_hidden_size
        ):
            # more than all branches bring: gathering would cost more than the published form
            self.forms = tuple(form for form in self.forms if form != GATHERED)
        self.blocks = [
            f"stages.{s}.blocks.{b}"
            for s, depth in enumerate(self.config.depths)
            for b in range(depth)
        ]
        self.skippable = skippable_blocks(skippable, self.blocks)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        super().__init__(
            self._encoder_decisions() + self._decoder_decisions(),
            input_shape=(int(self.config.num_channels), int(height), int(width)),
        )
        self.num_classes = num_classes

    def _runs(self, block: str) -> Condition | None:
        return Condition(f"{block}.run", (True,)) if block in self.skippable else None

    def _encoder_decisions(self) -> list[Decision]:
        decisions = []
        for block in self.blocks:
            if block in self.skippable:
                decisions.append(Decision(f"{block}.run", (False, True)))
            heads = self._heads(block)
            if len(heads) > 1:
                decisions.append(Decision(f"{block}.heads", heads, self._runs(block)))
            decisions.append(Decision(f"{block}.mlp_ratio", self.mlp_ratios, self._runs(block)))
        return decisions

    def _heads(self, block: str) -> tuple[int, ...]:
        stage = int(block.split(".")[1])
        return head_counts(self.config.num_attention_heads[stage], self.head_ratios)

    def _decoder_decisions(self) -> list[Decision]:
        published = None
        decisions = []
        if len(self.forms) > 1:
            decisions.append(Decision("decoder.form", self.forms))
            published = Condition("decoder.form", ("as_published",))
        decisions += [
            Decision(f"decoder.branches.{i}.keep", self.keep_ratios, published)
            for i in range(self.config.num_encoder_blocks)
        ]
        return [*decisions, Decision("decoder.width", self.width_ratios)]

    def reference(self) -> SegformerForSemanticSegmentation:
        """The original model with new random weights, in evaluation mode."""
        return SegformerForSemanticSegmentation(copy.deepcopy(self.config)).eval()

    def units_of(self, model: nn.Module) -> list[Unit]:
        """The chain of units around the modules of an original model."""
        assert isinstance(model, SegformerForSemanticSegmentation)
        units: list[Unit] = []
        for s, stage in enumerate(model.segformer.stages):
            units.append(Embed(f"stages.{s}.embed", stage))
            for b, layer in enumerate(stage.blocks):
                name = f"stages.{s}.blocks.{b}"
                decisions = [d for d in (f"{name}.heads", f"{name}.mlp_ratio") if self._has(d)]
                units.append(Block(name, layer, decisions, self._runs(name), self.divisor))
            units.append(Norm(f"stages.{s}.norm", stage))
        names = [d.name for d in self.decisions if d.name.startswith("decoder.")]
        return [*units, Decoder("decoder", model.decode_head, names, self.divisor)]

    def _has(self, decision: str) -> bool:
        return decision in self.positions

    def original_state(self, model: ElasticModel) -> dict[str, Tensor]:
        """The state dict of the original model with an elastic model's weights."""
        state: dict[str, Tensor] = {}
        for unit in model.chain:
            if isinstance(unit, Decoder):
                state |= plain_state(unit.head, "decode_head.")
            elif isinstance(unit, Embed):
                stage = unit.name.removesuffix(".embed")
                state |= plain_state(unit.embed, f"segformer.{stage}.patch_embeddings.")
            elif isinstance(unit, Block):
                state |= plain_state(unit.layer, f"segformer.{unit.name}.")
            elif isinstance(unit, Norm):
                stage = unit.name.removesuffix(".norm")
                state |= plain_state(unit.norm, f"segformer.{stage}.layer_norm.")
        return state


def _config(variant: str | None, arguments: Mapping[str, Any], num_classes: int) -> SegformerConfig:
    fields: dict[str, Any] = {}
    if variant is not None:
        if variant not in _VARIANTS:
            raise InvalidValueError(
                f"variant: there is no SegFormer {variant!r}; {nearest(variant, _VARIANTS)}"
            )
        depths, sizes, width = _VARIANTS[variant]
        fields = {"depths": depths, "hidden_sizes": sizes, "decoder_hidden_size": width}
    given = checked_arguments(SegformerConfig, arguments, field="arguments", without=BASE_FIELDS)

    def made(arguments: Mapping[str, Any]) -> SegformerConfig:
        return SegformerConfig(**{**fields, **arguments}, num_labels=num_classes)

    config = tried(made, given, field="arguments")
    stages = config.num_encoder_blocks
    for name in _BY_STAGE:
        values = getattr(config, name)
        if len(values) != stages:
            raise InvalidValueError(
                f"arguments.{name} must have an entry for each of {stages} stages "
                f"(num_encoder_blocks), but got {list(values)}"
            )
    multiple_of_heads("arguments.hidden_sizes", config.hidden_sizes, config.num_attention_heads)
    if not config.reshape_last_stage:
        raise InvalidValueError("arguments.reshape_last_stage must be true, but got false")
    if given:
        with torch.device("meta"):
            tried(
                lambda given: SegformerForSemanticSegmentation(made(given)),
                given,
                field="arguments",
            )
    return config
