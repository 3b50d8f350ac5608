"""The Swin backbone of UPerNet, unit by unit.

Liu et al., "Swin Transformer" (ICCV 2021, arXiv 2103.14030). The state is the tuple of feature maps
so far, (B, C, Y, X), and last the map that is being worked on, (B, Y, X, C).
"""

import copy
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
from transformers.models.swin.modeling_swin import (
    SwinEmbeddings,
    SwinLayer,
    SwinPatchMerging,
    window_partition,
    window_reverse,
)

from paretopath.elastic import ChannelGroup, Choice, ElasticLinear, Onto, Reader, State, Unit
from paretopath.paths import Condition
from search_spaces.widths import channels


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
        self,
        name: str,
        layer: SwinLayer,
        decisions: Sequence[str],
        requires: Condition | None,
        divisor: int = 1,
    ) -> None:
        super().__init__(name, decisions=decisions, requires=requires)
        self.divisor = divisor  # of hidden channels
        for projection in ("q_proj", "k_proj", "v_proj", "o_proj"):
            linear = getattr(layer.attention, projection)
            setattr(layer.attention, projection, ElasticLinear.of(linear))
        layer.mlp.fc1 = ElasticLinear.of(layer.mlp.fc1)
        layer.mlp.fc2 = ElasticLinear.of(layer.mlp.fc2)
        self.layer = layer

    def _widths(self, choice: Choice) -> tuple[int, int]:
        """Heads and hidden channels of a choice."""
        heads = int(choice.get(f"{self.name}.heads", self.layer.attention.num_attention_heads))
        share = choice[f"{self.name}.mlp_ratio"]
        hidden = channels(self.layer.mlp.fc1.out_features, share, self.divisor)
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
