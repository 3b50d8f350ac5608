"""Attention of DETR's relatives with heads that can be left out, and their feed-forward networks.

The parameters are those of mmdet's modules. Projections of queries, keys and values, which PyTorch
keeps in one matrix, are layers of their own here, so that a head is a prefix of each.
"""

from typing import Any

from torch import Tensor, nn

from paretopath.errors import InvalidValueError
from search_spaces.blocks.attention import attend, projections
from search_spaces.blocks.layers import linear
from search_spaces.blocks.spans import Group
from search_spaces.detr.pieces import group, write
from search_spaces.detr.states import Tokens


class Headed(nn.Module):
    """Attention of any kind, whose first heads can be kept alone.

    Args:
        heads: how many.
        head_width: channels of each.
        out: the layer that reads them.
    """

    makers: tuple[str, ...]
    """The layers whose outputs are heads."""

    def __init__(self, heads: int, head_width: int, out: nn.Linear) -> None:
        super().__init__()
        self.heads, self.head_width = heads, head_width
        self.out = out

    def groups(self, prefix: str, name: str) -> Group:
        """Its heads, as the group ``name`` of a body that holds it as ``prefix``."""
        makers = [f"{prefix}.{part}" for part in self.makers]
        return group(name, self.heads, self.head_width, makers, f"{prefix}.out")


class Attention(Headed):
    """Every query looks at every key (Vaswani et al., arXiv 1706.03762).

    Args:
        original: mmcv's ``MultiheadAttention``.
    """

    makers = ("query", "key", "value")

    def __init__(self, original: Any) -> None:
        packed: nn.MultiheadAttention = original.attn
        super().__init__(packed.num_heads, packed.head_dim, linear(packed.out_proj))
        self.query, self.key, self.value = projections(packed)
        self.dropout = packed.dropout
        self.behind = nn.Sequential(original.proj_drop, original.dropout_layer)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        *,
        skip: Tensor,
        blocked: Tensor | None,
        keys: Tensor | None = None,
    ) -> Tensor:
        """What the queries see, added to ``skip``.

        Args:
            query: (B, Q, C).
            key, value: (B, N, C).
            skip: (B, Q, C).
            blocked: bool, broadcast to (B, heads, Q, N): True where a query must not look.
            keys: (B, Q) see :class:`~paretopath.elastic.Onto`.
        """
        out = attend(
            self.query(query),
            self.key(key),
            self.value(value),
            self.head_width,
            mask=None if blocked is None else ~blocked,
            dropout=self.dropout if self.training else 0.0,
        )
        return skip + self.behind(write(self.out, out, skip, keys))  # type: ignore[no-any-return]

    def encode(self, x: Tensor, positions: Tensor, tokens: Tokens) -> Tensor:
        """Tokens (B, N, C) that look at one another."""
        query = x + positions
        return self(query, query, x, skip=x, blocked=tokens.padding[:, None, None])  # type: ignore[no-any-return]

    def look(
        self,
        x: Tensor,
        positions: Tensor,
        references: Tensor | None,
        tokens: Tokens,
        keys: Tensor | None,
    ) -> Tensor:
        """Queries (B, Q, C), of these keys, that look at tokens."""
        key, blocked = tokens.x + tokens.positions, tokens.padding[:, None, None]
        return self(x + positions, key, tokens.x, skip=x, blocked=blocked, keys=keys)  # type: ignore[no-any-return]


class FeedForward(nn.Module):
    """Two linear layers, added to their input.

    Args:
        original: mmcv's ``FFN``.

    Raises:
        InvalidValueError: it has another number of layers.
    """

    def __init__(self, original: Any) -> None:
        super().__init__()
        if original.num_fcs != 2:
            raise InvalidValueError(
                f"config: a feed-forward network must have two layers (num_fcs), "
                f"but got {original.num_fcs}"
            )
        first, second, last_dropout = original.layers
        self.fc1, self.act, self.dropout = linear(first[0]), first[1], first[2]
        self.fc2 = linear(second)
        self.behind = nn.Sequential(last_dropout, original.gamma2, original.dropout_layer)
        self.hidden = self.fc1.out_features

    def forward(self, x: Tensor, skip: Tensor | None = None, keys: Tensor | None = None) -> Tensor:
        """(B, N, C), of these keys, -> the same shape, added to ``skip``, or to ``x``."""
        skip = x if skip is None else skip
        hidden = self.dropout(self.act(self.fc1(x)))
        return skip + self.behind(write(self.fc2, hidden, skip, keys))  # type: ignore[no-any-return]

    def groups(self, prefix: str, name: str) -> Group:
        """Its hidden channels; see :meth:`Headed.groups`."""
        return group(name, self.hidden, 1, [f"{prefix}.fc1"], f"{prefix}.fc2")
