"""Multi-head attention whose projections are layers of their own, so that a head is a prefix."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from search_spaces.blocks.layers import linear


class SplitAttention(nn.Module):
    """``nn.MultiheadAttention`` whose projections are layers of their own: a head is a prefix of
    each. It is called as the original is.
    """

    makers = ("query", "key", "value")

    def __init__(
        self,
        query: nn.Module,
        key: nn.Module,
        value: nn.Module,
        out: nn.Module,
        *,
        head_width: int,
        dropout: float,
        batch_first: bool,
    ) -> None:
        super().__init__()
        self.query, self.key, self.value, self.out = query, key, value, out
        self.head_width, self.dropout, self.batch_first = head_width, dropout, batch_first

    @staticmethod
    def can_be(packed: nn.MultiheadAttention) -> bool:
        """Whether it computes what this does."""
        same = packed._qkv_same_embed_dim and packed.bias_k is None and not packed.add_zero_attn
        return bool(same) and packed.num_heads > 1

    @classmethod
    def of(cls, packed: nn.MultiheadAttention) -> "SplitAttention":
        """The same attention; its parameters are copied."""
        return cls(
            *projections(packed),
            linear(packed.out_proj),
            head_width=packed.head_dim,
            dropout=packed.dropout,
            batch_first=packed.batch_first,
        ).train(packed.training)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, None]:
        """See ``nn.MultiheadAttention``; without the weights."""
        q, k, v = self.query(query), self.key(key), self.value(value)
        if key_padding_mask is not None or attn_mask is not None or q.ndim != 3:
            raise NotImplementedError("masks, or images that are not a batch")
        if not self.batch_first:
            q, k, v = (x.transpose(0, 1) for x in (q, k, v))
        seen = attend(q, k, v, self.head_width, dropout=self.dropout if self.training else 0.0)
        return self.out(seen if self.batch_first else seen.transpose(0, 1)), None

    def original_state(self) -> dict[str, Tensor]:
        """Its parameters as the original has them."""
        layers = [getattr(self, name) for name in self.makers]
        state = {"in_proj_weight": torch.cat([layer.weight.detach() for layer in layers])}
        if layers[0].bias is not None:
            state["in_proj_bias"] = torch.cat([layer.bias.detach() for layer in layers])
        out = self.out.named_parameters()
        return state | {f"out_proj.{name}": p.detach() for name, p in out}

    def plain(self) -> nn.Module:
        """The attention as it runs: the original's class where no head is left out."""
        layers: Any = (self.query, self.key, self.value, self.out)
        query, key, value, out = (layer.plain() for layer in layers)
        plain = SplitAttention(
            query,
            key,
            value,
            out,
            head_width=self.head_width,
            dropout=self.dropout,
            batch_first=self.batch_first,
        ).train(self.training)
        width = query.out_features
        has_biases = {layer.bias is not None for layer in (query, key, value, out)}
        if width != query.in_features or len(has_biases) > 1:
            return plain
        packed = nn.MultiheadAttention(
            width,
            width // self.head_width,
            dropout=self.dropout,
            bias=has_biases.pop(),
            batch_first=self.batch_first,
            device="meta",
        ).train(self.training)
        packed.load_state_dict(plain.original_state(), assign=True)
        return packed.requires_grad_(True)


def attend(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    head_width: int,
    *,
    mask: Tensor | None = None,
    dropout: float = 0.0,
) -> Tensor:
    """What queries (B, Q, heads * width) see of keys and values (B, N, heads * width).

    Args:
        query, key, value: projected.
        head_width: channels of a head.
        mask: see ``scaled_dot_product_attention``.
        dropout: of the weights.
    """
    q, k, v = (x.unflatten(-1, (-1, head_width)).transpose(1, 2) for x in (query, key, value))
    out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout)
    return out.transpose(1, 2).flatten(2)


def projections(packed: nn.MultiheadAttention) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
    """The layers that make queries, keys and values, which PyTorch keeps in one matrix."""
    width = packed.embed_dim
    made = []
    for i in range(3):
        rows = slice(i * width, (i + 1) * width)
        layer = nn.Linear(width, width, bias=packed.in_proj_bias is not None, device="meta")
        layer.weight = nn.Parameter(packed.in_proj_weight[rows].detach().clone())
        if packed.in_proj_bias is not None:
            layer.bias = nn.Parameter(packed.in_proj_bias[rows].detach().clone())
        made.append(layer.train(packed.training))
    query, key, value = made
    return query, key, value
