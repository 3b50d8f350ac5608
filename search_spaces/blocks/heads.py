"""Attention whose first heads run alone, in the place of another library's module.

What looks like attention is found by the names of its layers, and tried like every group of
channels (:mod:`search_spaces.blocks.trials`). Its own code runs, and is shown fewer heads: what it
reads of itself, the number of heads, their channels, a table with a column for each, is narrowed.
"""

import copy
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.elastic import Onto, fill
from search_spaces.blocks.attention import SplitAttention
from search_spaces.blocks.layers import BlockLinear, Part, can_be_narrowed, inputs, outputs
from search_spaces.blocks.spans import Group, Span

_COUNTS = ("num_heads", "num_attention_heads", "heads")
_WIDTHS = ("attn_dim", "all_head_dim", "all_head_size")
_PROJECTIONS = (
    (("qkv",), ("proj",)),
    (("q_proj", "k_proj", "v_proj"), ("proj", "o_proj", "out_proj")),
)
"""Names of the layers that make heads, one for queries, keys and values together or one for each,
and those of the layer that may read them."""

_FUSED = 3
"""Queries, keys and values, which one layer makes."""


def find_heads(body: nn.Module) -> Iterator[Group]:
    """The heads of what looks like attention in a body, each a group named as its module."""
    for name, module in body.named_modules():
        if type(module) is nn.MultiheadAttention:
            if name and SplitAttention.can_be(module):
                yield _heads(name, module.num_heads, SplitAttention.makers, "out", module.head_dim)
            continue
        heads = next((n for n in map(module.__dict__.get, _COUNTS) if isinstance(n, int)), 0)
        for makers, readers in _PROJECTIONS:
            made = [module._modules.get(maker) for maker in makers]
            read = next((r for r in readers if module._modules.get(r) is not None), None)
            if heads < 2 or read is None or not all(m and can_be_narrowed(m) for m in made):
                continue
            reader = module.get_submodule(read)
            if not isinstance(reader, nn.Linear) or not can_be_narrowed(reader):
                continue
            width = inputs(reader)
            all_made = width * (_FUSED if len(makers) == 1 else 1)
            if width % heads or any(outputs(m) != all_made for m in made if m is not None):
                continue
            yield _heads(name, heads, makers, read, width // heads, _tables(module, heads))


def _heads(
    name: str,
    heads: int,
    makers: Sequence[str],
    reader: str,
    width: int,
    tables: Sequence[str] = (),
) -> Group:
    prefix = f"{name}." if name else ""
    return Group(
        name,
        heads,
        width,
        tuple(f"{prefix}{maker}" for maker in makers),
        (Span(f"{prefix}{reader}", 0, heads * width),),
        tables=tuple(f"{prefix}{table}" for table in tables),
        is_heads=True,
    )


def _tables(attention: nn.Module, heads: int) -> list[str]:
    """The parameters of attention's own that have a column for each head."""
    own = attention._parameters.items()
    return [name for name, p in own if p is not None and p.ndim > 1 and p.shape[-1] == heads]


class HeadwiseLinear(BlockLinear):
    """A layer that makes queries, keys and values of all heads: (…, inputs) -> (…, outputs).

    What it gives is in the order of the original, (3, heads, channels); its rows are stored head by
    head, (heads, 3, channels), so that the first heads are a prefix.

    Attributes:
        entries: heads.
    """

    entries: int

    @classmethod
    def of_heads(cls, linear: nn.Linear, heads: int) -> "HeadwiseLinear":
        """The elastic form of a layer; its parameters are copied, in another order."""
        made = cls.of(linear)
        made.entries = heads
        made.weight = nn.Parameter(_swapped(linear.weight.detach(), _FUSED, heads))
        if linear.bias is not None:
            made.bias = nn.Parameter(_swapped(linear.bias.detach(), _FUSED, heads))
        return made

    def forward(self, x: Tensor, outputs: int | None = None, *, onto: Onto | None = None) -> Tensor:
        """See :class:`~paretopath.elastic.ElasticLinear`."""
        return F.linear(x, *self._original(x.shape[-1], outputs or self.out_features))

    def narrow(self, inputs: int, outputs: int) -> nn.Linear:
        """A plain copy with the first heads."""
        weight, bias = self._original(inputs, outputs)
        plain = nn.Linear(inputs, outputs, bias=bias is not None, device="meta")
        return fill(plain, weight=weight, bias=bias)

    def original_state(self) -> dict[str, Tensor]:
        """Its parameters in the original's order."""
        own = self._parameters.items()
        return {n: _swapped(p.detach(), self.entries, _FUSED) for n, p in own if p is not None}

    def _original(self, inputs: int, outputs: int) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of the first heads in the original's order."""
        weight, bias = self.operands(inputs, outputs)
        heads = outputs * self.entries // self.out_features
        return (
            _swapped(weight, heads, _FUSED),
            None if bias is None else _swapped(bias, heads, _FUSED),
        )


def _swapped(rows: Tensor, first: int, second: int) -> Tensor:
    """Rows (first, second, …) as (second, first, …), in one dimension each way."""
    swapped: Tensor = rows.unflatten(0, (first, second, -1)).transpose(0, 1).flatten(0, 2)
    return swapped


@dataclass(frozen=True)
class _Narrowing:
    """What an attention module's code is shown of itself.

    Attributes:
        original: its class.
        heads: those that run.
        width: channels of one.
        counts, widths, tables: its attributes that are the number of heads, their channels, and
            tables with a column for each head.
    """

    original: type[nn.Module]
    heads: Part
    width: int
    counts: tuple[str, ...]
    widths: tuple[str, ...]
    tables: tuple[str, ...]

    def shown(self) -> dict[str, int]:
        """The numbers, as they are where the module runs now."""
        kept = self.heads.kept()
        return dict.fromkeys(self.counts, kept) | dict.fromkeys(self.widths, kept * self.width)

    def first_columns(self, table: Tensor) -> Tensor:
        """Those of the heads that run; the parameter itself where all do."""
        kept = self.heads.kept()
        return table if kept == self.heads.size else table[..., :kept]


class ElasticAttention(nn.Module):
    """Attention that runs, and is extracted, with its first heads; see :func:`make_headed`."""

    narrowing: _Narrowing

    def plain(self) -> nn.Module:
        """The module as it runs, of its own class."""
        elastic = [m for m in self.modules() if isinstance(m, BlockLinear)]
        memo: dict[int, Any] = {id(layer): layer.plain() for layer in elastic}
        for name in self.narrowing.tables:
            shown = nn.Parameter(getattr(self, name).detach().clone())
            memo[id(self._parameters[name])] = shown
        own = {name: value for name, value in vars(self).items() if name != "narrowing"}
        plain = self.narrowing.original.__new__(self.narrowing.original)
        plain.__dict__.update(copy.deepcopy(own, memo) | self.narrowing.shown())
        return plain


def make_headed(body: nn.Module, group: Group) -> None:
    """Puts attention that is told its heads in the place of the module after which a group is
    named; what is elastic already stays.

    Args:
        body: in which it lies, or which it is: then it becomes another class in place.
        group: of :func:`find_heads`.
    """
    attention = body.get_submodule(group.name)
    if isinstance(attention, ElasticAttention | SplitAttention):
        return
    if isinstance(attention, nn.MultiheadAttention):
        body.set_submodule(group.name, SplitAttention.of(attention))
        return
    for maker in group.makers:
        layer = body.get_submodule(maker)
        if len(group.makers) == 1:
            assert isinstance(layer, nn.Linear)
            headwise = HeadwiseLinear.of_heads(layer, group.entries)
            headwise.name, headwise.makes = maker, Part(outputs(layer))
            headwise.reads = (Part(inputs(layer)),)
            body.set_submodule(maker, headwise.train(layer.training))
    numbers = {n: v for n, v in vars(attention).items() if isinstance(v, int)}
    narrowing = _Narrowing(
        type(attention),
        Part(group.entries, group.name, group.entries),
        group.width,
        tuple(n for n in _COUNTS if n in numbers),
        tuple(n for n in _WIDTHS if numbers.get(n) == group.entries * group.width),
        tuple(table.rpartition(".")[2] for table in group.tables),
    )
    for name in narrowing.shown():
        del attention.__dict__[name]  # the class shows it
    attention.narrowing = narrowing  # type: ignore[assignment]
    attention.__class__ = _shown(narrowing)


def _shown(narrowing: _Narrowing) -> type[nn.Module]:
    """A class of attention whose code sees what is narrowed."""

    def number(name: str) -> property:
        return property(lambda self: self.narrowing.shown()[name])

    def table(name: str) -> property:
        return property(lambda self: self.narrowing.first_columns(self._parameters[name]))

    seen = {name: number(name) for name in narrowing.shown()}
    seen |= {name: table(name) for name in narrowing.tables}
    original = narrowing.original
    return type(f"Elastic{original.__name__}", (ElasticAttention, original), seen)
