"""SegFormer's encoder, unit by unit.

Xie et al., "SegFormer" (NeurIPS 2021, arXiv 2105.15203), section 3.1. The state is the tuple of
feature maps so far; its last entry is being worked on.
"""

import copy
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn
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
    Onto,
    Reader,
    State,
    Unit,
)
from paretopath.paths import Condition
from search_spaces.widths import channels


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
        self,
        name: str,
        layer: SegformerLayer,
        decisions: Sequence[str],
        requires: Condition | None,
        divisor: int = 1,
    ) -> None:
        super().__init__(name, decisions=decisions, requires=requires)
        self.divisor = divisor  # of hidden channels
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
        share = choice[f"{self.name}.mlp_ratio"]
        hidden = channels(self.layer.mlp.fc1.out_features, share, self.divisor)
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
