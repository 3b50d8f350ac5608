"""SegFormer: blocks skipped, Mix-FFNs and attention narrowed, the decoder narrowed or rewritten.

Xie et al., "SegFormer" (NeurIPS 2021, arXiv 2105.15203); the model is transformers'
``SegformerForSemanticSegmentation``. The state is the tuple of feature maps so far; its last entry
is being worked on.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from transformers.models.segformer.modeling_segformer import (
    SegformerLayer,
    SegformerOverlapPatchEmbeddings,
    SegformerStage,
)

from paretopath.elastic import (
    ChannelGroup,
    Choice,
    ElasticConv2d,
    ElasticLinear,
    ElasticModel,
    Onto,
    Reader,
    State,
    Unit,
)
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
from search_spaces.widths import (
    channels,
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
        forms: Names = FORMS,
    ) -> None:
        self.config = _config(variant, arguments or {}, num_classes)
        self.mlp_ratios = fractions("mlp_ratios", mlp_ratios)
        self.head_ratios = fractions("head_ratios", head_ratios)
        self.keep_ratios = fractions("keep_ratios", keep_ratios)
        self.width_ratios = fractions("width_ratios", width_ratios)
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
                units.append(Block(name, layer, decisions, self._runs(name)))
            units.append(Norm(f"stages.{s}.norm", stage))
        names = [d.name for d in self.decisions if d.name.startswith("decoder.")]
        return [*units, Decoder("decoder", model.decode_head, names)]

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


class Embed(Unit):
    """Overlapping patch embedding: (…, features (B, C, Y, X)) -> (…, x (B, Y', X', C')) added."""

    def __init__(self, name: str, stage: SegformerStage) -> None:
        super().__init__(name)
        self.embed = stage.patch_embeddings

    def forward(self, state: State, choice: Choice) -> State:
        return _embedded(self.embed, state)

    def extract(self, choice: Choice) -> nn.Module:
        return PlainEmbed(copy.deepcopy(self.embed))


class PlainEmbed(nn.Module):
    """Overlapping patch embedding of the last feature map."""

    def __init__(self, embed: SegformerOverlapPatchEmbeddings) -> None:
        super().__init__()
        self.embed = embed

    def forward(self, state: State) -> State:
        return _embedded(self.embed, state)


def _embedded(embed: SegformerOverlapPatchEmbeddings, state: State) -> tuple[Tensor, ...]:
    """All features so far and the tokens of the last one: (B, Y, X, C)."""
    features: tuple[Tensor, ...] = () if isinstance(state, Tensor) else state
    tokens, height, width = embed(state if isinstance(state, Tensor) else state[-1])
    return (*features, tokens.unflatten(1, (height, width)))


class Norm(Unit):
    """The norm that ends a stage: (…, x (B, Y, X, C)) -> (…, features (B, C, Y, X))."""

    def __init__(self, name: str, stage: SegformerStage) -> None:
        super().__init__(name)
        self.norm = stage.layer_norm

    def forward(self, state: State, choice: Choice) -> State:
        return _normed(self.norm, state)

    def extract(self, choice: Choice) -> nn.Module:
        return PlainNorm(copy.deepcopy(self.norm))


class PlainNorm(nn.Module):
    """The norm that ends a stage."""

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.norm = norm

    def forward(self, state: State) -> State:
        return _normed(self.norm, state)


def _normed(norm: nn.LayerNorm, state: State) -> tuple[Tensor, ...]:
    return (*state[:-1], norm(state[-1]).permute(0, 3, 1, 2).contiguous())


class Block(Unit):
    """A block that runs with its first heads and first hidden channels; x is (B, Y, X, C)."""

    def __init__(
        self, name: str, layer: SegformerLayer, decisions: Sequence[str], requires: Condition | None
    ) -> None:
        super().__init__(name, decisions=decisions, requires=requires)
        attention, mlp = layer.attention, layer.mlp
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            setattr(attention, projection, ElasticLinear.of(getattr(attention, projection)))
        mlp.fc1, mlp.fc2 = ElasticLinear.of(mlp.fc1), ElasticLinear.of(mlp.fc2)
        mlp.dwconv.dwconv = ElasticConv2d.of(mlp.dwconv.dwconv)
        self.layer = layer

    def _widths(self, choice: Choice) -> tuple[int, int]:
        """Attention channels and hidden channels of a choice."""
        attention = self.layer.attention
        heads = int(choice.get(f"{self.name}.heads", attention.num_attention_heads))
        hidden = channels(self.layer.mlp.fc1.out_features, choice[f"{self.name}.mlp_ratio"])
        return heads * attention.head_dim, hidden

    def forward(self, state: State, choice: Choice) -> State:
        width, hidden = self._widths(choice)
        layer, x = self.layer, state[-1]
        attended = self._attend(layer.layernorm_before(x), width, Onto(x.flatten(1, 2)))
        x = layer.drop_path(layer.hidden_dropout(attended)) + x
        mixed = self._mix(layer.layernorm_after(x), hidden, Onto(x))
        return (*state[:-1], layer.drop_path(mixed) + x)

    def _attend(self, x: Tensor, width: int, onto: Onto) -> Tensor:
        attention = self.layer.attention
        height, wide = x.shape[1:3]
        tokens = x.flatten(1, 2)
        reduced = tokens
        if attention.sequence_reduction_ratio > 1:
            reduced = attention.sequence_reduction(tokens, height, wide)

        def heads(projection: ElasticLinear, tokens: Tensor) -> Tensor:
            split: Tensor = projection(tokens, width).unflatten(-1, (-1, attention.head_dim))
            return split.transpose(1, 2)  # (B, heads, N, head_dim)

        out = F.scaled_dot_product_attention(
            heads(attention.q_proj, tokens),
            heads(attention.k_proj, reduced),
            heads(attention.v_proj, reduced),
            dropout_p=attention.attention_dropout if self.training else 0.0,
            scale=attention.scaling,
        )
        projected = attention.o_proj(out.transpose(1, 2).flatten(2), onto=onto)
        grid: Tensor = projected.unflatten(1, (height, wide))
        return grid

    def _mix(self, x: Tensor, hidden: int, onto: Onto) -> Tensor:
        mlp = self.layer.mlp
        h = mlp.fc1(x, hidden).permute(0, 3, 1, 2)  # (B, hidden, Y, X)
        h = mlp.dwconv.dwconv(h).permute(0, 2, 3, 1)
        mixed: Tensor = mlp.dropout(mlp.fc2(mlp.dropout(mlp.activation_fn(h)), onto=onto))
        return mixed

    def extract(self, choice: Choice) -> nn.Module:
        width, hidden = self._widths(choice)
        own, plain = self.layer, copy.deepcopy(self.layer)
        attention, mlp = plain.attention, plain.mlp
        for projection in ("q_proj", "k_proj", "v_proj"):
            narrow = getattr(own.attention, projection).narrow(attention.q_proj.in_features, width)
            setattr(attention, projection, narrow)
        attention.o_proj = own.attention.o_proj.narrow(width, attention.o_proj.out_features)
        attention.num_attention_heads = width // attention.head_dim
        mlp.fc1 = own.mlp.fc1.narrow(mlp.fc1.in_features, hidden)
        mlp.dwconv.dwconv = own.mlp.dwconv.dwconv.narrow(hidden, hidden)
        mlp.fc2 = own.mlp.fc2.narrow(hidden, mlp.fc2.out_features)
        return PlainBlock(plain)

    def channel_groups(self) -> list[ChannelGroup]:
        attention, mlp = self.layer.attention, self.layer.mlp
        filters = ("layer.mlp.fc1", "layer.mlp.dwconv.dwconv")
        groups = [ChannelGroup(mlp.fc1.out_features, filters, (Reader("layer.mlp.fc2"),))]
        if f"{self.name}.heads" in self.decisions:
            makers = tuple(f"layer.attention.{part}" for part in ("q_proj", "k_proj", "v_proj"))
            readers = (Reader("layer.attention.o_proj"),)
            groups.append(ChannelGroup(attention.num_attention_heads, makers, readers))
        return groups


class PlainBlock(nn.Module):
    """A transformers SegFormer block on the last entry of the state."""

    def __init__(self, layer: SegformerLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, state: State) -> State:
        x = state[-1]
        height, width = x.shape[1:3]
        out: Tensor = self.layer(x.flatten(1, 2), height, width)
        return (*state[:-1], out.unflatten(1, (height, width)))


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
