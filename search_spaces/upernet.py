"""UPerNet on a Swin backbone: blocks skipped, MLPs and attention narrowed, the decoder narrowed.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding" (ECCV 2018, arXiv 1807.10221); Liu
et al., "Swin Transformer" (ICCV 2021, arXiv 2103.14030); the model is transformers'
``UperNetForSemanticSegmentation``. The state is the tuple of feature maps so far, (B, C, Y, X), and
last the map that is being worked on, (B, Y, X, C).
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import SwinConfig, UperNetConfig, UperNetForSemanticSegmentation
from transformers.models.swin.modeling_swin import (
    SwinEmbeddings,
    SwinLayer,
    SwinPatchMerging,
    window_partition,
    window_reverse,
)

from paretopath.elastic import (
    ChannelGroup,
    Choice,
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
from search_spaces.upernet_decoder import Decoder
from search_spaces.widths import (
    channels,
    decoder_forms,
    fractions,
    head_counts,
    multiple_of_heads,
    skippable_blocks,
)

# Embedding width, depths and heads of the paper's Swin-T, S and B, and the window of the published
# UPerNets over them.
_VARIANTS: Mapping[str, tuple[int, tuple[int, ...], tuple[int, ...], int]] = {
    "t": (96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "s": (96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "b": (128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
}


class UpernetSwinSpace(PretrainedSpace):
    """The paths of a UPerNet with a Swin backbone, without the auxiliary head that only trains it.

    Decisions, for stage S and block B:

    - ``stages.S.blocks.B.run``: whether the block runs; a bypassed one is the identity;
    - ``stages.S.blocks.B.heads``: attention heads kept;
    - ``stages.S.blocks.B.mlp_ratio``: share of the MLP's hidden channels kept;
    - ``decoder.form``: ``as_published``, or ``upsampled_late``: the same function with the FPN
      bottleneck's products at each level's own size;
    - ``decoder.pool_width``: share of each pyramid pooling branch's channels;
    - ``decoder.lateral_width``: share of the channels that lateral maps and the pyramid's output
      have: they are summed up on the way down;
    - ``decoder.fpn.I.width``: share of the channels that level I brings to the FPN bottleneck;
    - ``decoder.width``: share of the FPN bottleneck's output channels.

    Args:
        variant: ``t``, ``s`` or ``b``; None to construct from ``arguments`` alone.
        arguments: fields of transformers' ``UperNetConfig`` (``hidden_size``, ``pool_scales`` …).
        backbone: fields of its ``SwinConfig`` (``embed_dim``, ``depths``, ``window_size`` …). Both
            override the variant's.
        image_size: height and width in pixels, or one number for both.
        num_classes: of the segmentation.
        skippable: which blocks a path may skip: ``all``, ``none``, or names such as
            ``stages.2.blocks.1``.
        head_ratios: shares, in (0, 1], of the attention heads that a block may keep; rounded up.
        mlp_ratios: shares, in (0, 1], of the hidden channels that an MLP may keep.
        width_ratios: values, in (0, 1], of the decoder's widths.
        forms: values of ``decoder.form``; ``as_published`` must be among them.

    Raises:
        InvalidValueError: an option outside its range.
    """

    original = UperNetForSemanticSegmentation
    replaceable = ("decode_head.classifier.",)
    heads = ("decode_head.",)
    ignored = ("auxiliary_head.", "backbone.swin.layernorm.")

    @checked
    def __init__(
        self,
        *,
        variant: str | None = "t",
        arguments: Mapping[str, Any] | None = None,
        backbone: Mapping[str, Any] | None = None,
        image_size: Pixels = 512,
        num_classes: Count = 150,
        skippable: Names | str = "all",
        head_ratios: Shares = (0.5, 1.0),
        mlp_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        width_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        forms: Names = ("upsampled_late", "as_published"),
    ) -> None:
        self.config = _config(variant, arguments or {}, backbone or {}, num_classes)
        self.mlp_ratios = fractions("mlp_ratios", mlp_ratios)
        self.head_ratios = fractions("head_ratios", head_ratios)
        self.width_ratios = fractions("width_ratios", width_ratios)
        self.forms = decoder_forms(forms, ("upsampled_late", "as_published"))
        swin = self.config.backbone_config
        self.blocks = [
            f"stages.{s}.blocks.{b}" for s, depth in enumerate(swin.depths) for b in range(depth)
        ]
        self.skippable = skippable_blocks(skippable, self.blocks)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if height % swin.patch_size or width % swin.patch_size:
            raise InvalidValueError(
                f"image_size must be a multiple of the patch size {swin.patch_size}, "
                f"but got {(height, width)}"
            )
        super().__init__(
            [*self._encoder_decisions(), *self._decoder_decisions()],
            input_shape=(int(swin.num_channels), int(height), int(width)),
        )
        self.num_classes = num_classes

    def _runs(self, block: str) -> Condition | None:
        return Condition(f"{block}.run", (True,)) if block in self.skippable else None

    def _encoder_decisions(self) -> list[Decision]:
        decisions = []
        for block in self.blocks:
            stage = int(block.split(".")[1])
            if block in self.skippable:
                decisions.append(Decision(f"{block}.run", (False, True)))
            heads = head_counts(self.config.backbone_config.num_heads[stage], self.head_ratios)
            if len(heads) > 1:
                decisions.append(Decision(f"{block}.heads", heads, self._runs(block)))
            decisions.append(Decision(f"{block}.mlp_ratio", self.mlp_ratios, self._runs(block)))
        return decisions

    def _decoder_decisions(self) -> list[Decision]:
        levels = len(self.config.backbone_config.depths) - 1
        names = ["pool_width", "lateral_width", *(f"fpn.{i}.width" for i in range(levels)), "width"]
        widths = [Decision(f"decoder.{name}", self.width_ratios) for name in names]
        forms = [Decision("decoder.form", self.forms)] if len(self.forms) > 1 else []
        return [*forms, *widths]

    def reference(self) -> UperNetForSemanticSegmentation:
        """The original model with new random weights, in evaluation mode.

        Without the norm that transformers makes after the backbone's last stage for classifiers: no
        feature map passes through it, and published checkpoints lack it.
        """
        model = UperNetForSemanticSegmentation(copy.deepcopy(self.config)).eval()
        model.backbone.swin.layernorm = nn.Identity()
        return model

    def units_of(self, model: nn.Module) -> list[Unit]:
        """The chain of units around the modules of an original model."""
        assert isinstance(model, UperNetForSemanticSegmentation)
        swin, norms = model.backbone.swin, model.backbone.hidden_states_norms
        units: list[Unit] = [Stem("stem", swin.embeddings)]
        for s, stage in enumerate(swin.encoder.layers):
            for b, layer in enumerate(stage.blocks):
                name = f"stages.{s}.blocks.{b}"
                decisions = [
                    d for d in (f"{name}.heads", f"{name}.mlp_ratio") if d in self.positions
                ]
                units.append(Block(name, layer, decisions, self._runs(name)))
            units.append(Output(f"stages.{s}.output", norms[f"stage{s + 1}"], stage.downsample))
        names = [d.name for d in self.decisions if d.name.startswith("decoder.")]
        patch_size = self.config.backbone_config.patch_size
        return [*units, Decoder("decoder", model.decode_head, names, patch_size=patch_size)]

    def original_state(self, model: ElasticModel) -> dict[str, Tensor]:
        """The state dict of the original model with an elastic model's weights."""
        encoder = "backbone.swin.encoder.layers."
        state: dict[str, Tensor] = {}
        for unit in model.chain:
            stage = unit.name.split(".")[1] if "." in unit.name else ""
            if isinstance(unit, Stem):
                state |= plain_state(unit.embeddings, "backbone.swin.embeddings.")
            elif isinstance(unit, Block):
                state |= plain_state(unit.layer, f"{encoder}{unit.name.removeprefix('stages.')}.")
            elif isinstance(unit, Output):
                norm = f"backbone.hidden_states_norms.stage{int(stage) + 1}."
                state |= plain_state(unit.norm, norm)
                if unit.downsample is not None:
                    state |= plain_state(unit.downsample, f"{encoder}{stage}.downsample.")
            elif isinstance(unit, Decoder):
                state |= plain_state(unit.head, "decode_head.")
        return state


class Stem(Unit):
    """Patch embedding: images (B, C, Y, X) -> (x (B, Y', X', C'),)."""

    def __init__(self, name: str, embeddings: SwinEmbeddings) -> None:
        super().__init__(name)
        self.embeddings = embeddings

    def forward(self, state: State, choice: Choice) -> State:
        tokens, size = self.embeddings(state)
        return (tokens.unflatten(1, size),)

    def extract(self, choice: Choice) -> nn.Module:
        return PlainStem(copy.deepcopy(self.embeddings))


class PlainStem(nn.Module):
    """Patch embedding."""

    def __init__(self, embeddings: SwinEmbeddings) -> None:
        super().__init__()
        self.embeddings = embeddings

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        tokens, size = self.embeddings(images)
        return (tokens.unflatten(1, size),)


class Output(Unit):
    """The end of a stage: its feature map, and the input of the next stage where there is one."""

    def __init__(self, name: str, norm: nn.LayerNorm, downsample: SwinPatchMerging | None) -> None:
        super().__init__(name)
        self.norm = norm
        self.downsample = downsample

    def forward(self, state: State, choice: Choice) -> State:
        return _stage_output(self.norm, self.downsample, state)

    def extract(self, choice: Choice) -> nn.Module:
        return PlainOutput(copy.deepcopy(self.norm), copy.deepcopy(self.downsample))


class PlainOutput(nn.Module):
    """The end of a stage."""

    def __init__(self, norm: nn.LayerNorm, downsample: SwinPatchMerging | None) -> None:
        super().__init__()
        self.norm = norm
        self.downsample = downsample

    def forward(self, state: State) -> State:
        return _stage_output(self.norm, self.downsample, state)


def _stage_output(
    norm: nn.LayerNorm, downsample: SwinPatchMerging | None, state: State
) -> tuple[Tensor, ...]:
    x = state[-1]
    feature = norm(x).permute(0, 3, 1, 2).contiguous()
    if downsample is None:
        return (*state[:-1], feature)
    height, width = x.shape[1:3]
    merged = downsample(x.flatten(1, 2), (height, width))
    return (*state[:-1], feature, merged.unflatten(1, ((height + 1) // 2, (width + 1) // 2)))


class Block(Unit):
    """A Swin block that runs with its first heads and first hidden channels; x is (B, Y, X, C)."""

    def __init__(
        self, name: str, layer: SwinLayer, decisions: Sequence[str], requires: Condition | None
    ) -> None:
        super().__init__(name, decisions=decisions, requires=requires)
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            linear = getattr(layer.attention, projection)
            setattr(layer.attention, projection, ElasticLinear.of(linear))
        layer.mlp.fc1 = ElasticLinear.of(layer.mlp.fc1)
        layer.mlp.fc2 = ElasticLinear.of(layer.mlp.fc2)
        self.layer = layer

    def _widths(self, choice: Choice) -> tuple[int, int]:
        """Heads and hidden channels of a choice."""
        heads = int(choice.get(f"{self.name}.heads", self.layer.attention.num_attention_heads))
        hidden = channels(self.layer.mlp.fc1.out_features, choice[f"{self.name}.mlp_ratio"])
        return heads, hidden

    def forward(self, state: State, choice: Choice) -> State:
        heads, hidden = self._widths(choice)
        layer, x = self.layer, state[-1]
        height, width = x.shape[1:3]
        windows, size = self._windows(layer.layernorm_before(x))
        mask = layer.get_attn_mask(*size, dtype=x.dtype, device=x.device)
        skip = x  # as it is now
        onto = Onto(lambda: self._windows(skip)[0])
        attended = layer.dropout(self._attend(windows, mask, heads, onto))
        attended = attended.unflatten(1, (layer.window_size, layer.window_size))
        whole = layer.cyclic_shift(window_reverse(attended, layer.window_size, *size), reverse=True)
        x = x + layer.drop_path(whole[:, :height, :width])
        mlp = layer.mlp
        h = mlp.activation_fn(mlp.fc1(layer.layernorm_after(x), hidden))  # (B, Y, X, hidden)
        return (*state[:-1], layer.dropout(mlp.fc2(h, onto=Onto(x))) + x)

    def _windows(self, x: Tensor) -> tuple[Tensor, tuple[int, int]]:
        """Windows (B * n, N, C) of a map (B, Y, X, C), shifted, and the map's size when padded."""
        layer = self.layer
        padded, _ = layer.maybe_pad(x, *x.shape[1:3])
        windows = window_partition(layer.cyclic_shift(padded), layer.window_size).flatten(1, 2)
        return windows, padded.shape[1:3]

    def _attend(self, windows: Tensor, mask: Tensor | None, heads: int, onto: Onto) -> Tensor:
        """Attention within windows (B * n, N, C); ``mask`` is (n, N, N)."""
        attention = self.layer.attention
        width = heads * attention.head_dim

        def split(projection: ElasticLinear) -> Tensor:
            projected: Tensor = projection(windows, width)
            parts: Tensor = projected.unflatten(-1, (heads, -1))
            return parts.transpose(1, 2)  # (B * n, heads, N, head_dim)

        bias = attention.relative_position_bias
        table = bias.relative_position_bias_table[:, :heads][bias.relative_position_index]
        area = bias.window_area
        combined = table.view(area, area, heads).permute(2, 0, 1).contiguous().unsqueeze(0)
        if mask is not None:
            combined = combined + mask.unsqueeze(1).repeat(len(windows) // len(mask), 1, 1, 1)
        out = F.scaled_dot_product_attention(
            split(attention.q_proj),
            split(attention.k_proj),
            split(attention.v_proj),
            attn_mask=combined,
            dropout_p=attention.attention_dropout if self.training else 0.0,
            scale=attention.scaling,
        )
        projected: Tensor = attention.o_proj(out.transpose(1, 2).flatten(2), onto=onto)
        return projected

    def extract(self, choice: Choice) -> nn.Module:
        heads, hidden = self._widths(choice)
        own, plain = self.layer, copy.deepcopy(self.layer)
        attention, mlp = plain.attention, plain.mlp
        width = heads * attention.head_dim
        for projection in ("q_proj", "k_proj", "v_proj"):
            narrow = getattr(own.attention, projection).narrow(attention.q_proj.in_features, width)
            setattr(attention, projection, narrow)
        attention.o_proj = own.attention.o_proj.narrow(width, attention.o_proj.out_features)
        attention.num_attention_heads = heads
        bias = attention.relative_position_bias
        table = bias.relative_position_bias_table[:, :heads].detach().clone()
        bias.relative_position_bias_table = nn.Parameter(table)
        mlp.fc1 = own.mlp.fc1.narrow(mlp.fc1.in_features, hidden)
        mlp.fc2 = own.mlp.fc2.narrow(hidden, mlp.fc2.out_features)
        return PlainBlock(plain)

    def channel_groups(self) -> list[ChannelGroup]:
        attention, mlp = self.layer.attention, self.layer.mlp
        readers: tuple[Reader, ...] = (Reader("layer.mlp.fc2"),)
        groups = [ChannelGroup(mlp.fc1.out_features, ("layer.mlp.fc1",), readers)]
        if f"{self.name}.heads" in self.decisions:
            makers = tuple(f"layer.attention.{part}" for part in ("q_proj", "k_proj", "v_proj"))
            readers = (Reader("layer.attention.o_proj"),)
            bias = ("layer.attention.relative_position_bias.relative_position_bias_table",)
            groups.append(ChannelGroup(attention.num_attention_heads, makers, readers, bias))
        return groups


class PlainBlock(nn.Module):
    """A transformers Swin block on the last entry of the state."""

    def __init__(self, layer: SwinLayer) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, state: State) -> State:
        x = state[-1]
        size = tuple(x.shape[1:3])
        out, _ = self.layer(x.flatten(1, 2), size, always_partition=True)
        return (*state[:-1], out.unflatten(1, size))


def _config(
    variant: str | None,
    arguments: Mapping[str, Any],
    backbone: Mapping[str, Any],
    num_classes: int,
) -> UperNetConfig:
    swin: dict[str, Any] = {}
    if variant is not None:
        if variant not in _VARIANTS:
            raise InvalidValueError(
                f"variant: there is no Swin {variant!r}; {nearest(variant, _VARIANTS)}"
            )
        width, depths, heads, window = _VARIANTS[variant]
        swin = {"embed_dim": width, "depths": depths, "num_heads": heads, "window_size": window}
    given = checked_arguments(
        UperNetConfig, arguments, field="arguments", without=(*BASE_FIELDS, "backbone_config")
    )
    inner = checked_arguments(SwinConfig, backbone, field="backbone", without=BASE_FIELDS)
    if type(inner.get("patch_size", 4)) is not int:
        raise InvalidValueError(
            f"backbone.patch_size must be a whole number, but got {inner['patch_size']}"
        )

    def made(arguments: Mapping[str, Any], backbone: Mapping[str, Any]) -> UperNetConfig:
        own = swin | dict(backbone)
        stages = len(own.get("depths", SwinConfig().depths))
        own["out_features"] = [f"stage{i + 1}" for i in range(stages)]
        return UperNetConfig(
            backbone_config=SwinConfig(**own),
            num_labels=num_classes,
            **{"use_auxiliary_head": False, **arguments},
        )

    config = tried(lambda inner: made(given, inner), inner, field="backbone")
    own = config.backbone_config
    if len(own.num_heads) != len(own.depths):
        raise InvalidValueError(
            f"backbone.num_heads must have an entry for each of {len(own.depths)} stages (depths), "
            f"but got {list(own.num_heads)}"
        )
    widths = [own.embed_dim * 2**stage for stage in range(len(own.depths))]
    multiple_of_heads("backbone.embed_dim, doubled each stage,", widths, own.num_heads)
    model = UperNetForSemanticSegmentation
    with torch.device("meta"):
        if inner:
            tried(lambda inner: model(made({}, inner)), inner, field="backbone")
        if given:
            tried(lambda given: model(made(given, inner)), given, field="arguments")
    return config
