"""Which layers' channels stand and fall together, by torch-pruning's dependency graph.

Fang et al., "DepGraph: Towards Any Structural Pruning" (CVPR 2023).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_flatten, tree_leaves, tree_unflatten

from search_spaces.blocks.layers import outputs

# isort: split
import torch_pruning  # imports timm, which the layers above have done without W&B
from torch_pruning._helpers import _HybridIndex

_MOST = 500_000
"""Channels that are followed from one layer, each counted at every step that it takes."""


class _TooMany(ValueError):
    """Channels that are reshaped into more than can be followed."""


@dataclass(frozen=True)
class Member:
    """A layer's side in one of torch-pruning's groups.

    Attributes:
        layer: its name.
        is_output: whether it is its outputs, or its inputs.
        channels: those of it, rising.
        roots: for each, the output of the group's first layer to which it belongs.
        norm: see :class:`Span`.
    """

    layer: str
    is_output: bool
    channels: tuple[int, ...]
    roots: tuple[int, ...]
    norm: str | None


@dataclass(frozen=True)
class Coupled:
    """One of torch-pruning's groups.

    Attributes:
        layers: of the body.
        in_state: whether it holds channels of the state that comes in, or goes out.
        others: what it holds besides, that has no layer.
    """

    layers: tuple[Member, ...]
    in_state: bool
    others: tuple[str, ...]

    @property
    def might_be_narrowed(self) -> bool:
        """Whether it lies inside, and is both made and read."""
        return not self.in_state and not all(member.is_output for member in self.layers)

    @property
    def makers(self) -> list[str]:
        """The layers whose outputs are in it."""
        return list(dict.fromkeys(m.layer for m in self.layers if m.is_output))


class _Probe(nn.Module):
    """A body behind a layer for each tensor of its state: so the graph shows where that is read."""

    def __init__(self, body: nn.Module, state: Any) -> None:
        super().__init__()
        self.body = body
        leaves, self.structure = tree_flatten(state)
        self.others = [None if _is_probed(leaf) else leaf for leaf in leaves]
        self.entries = nn.ModuleDict(
            {str(i): _entry(leaf) for i, leaf in enumerate(leaves) if _is_probed(leaf)}
        )

    def forward(self, *leaves: Any) -> Any:
        own = list(self.others)
        for (key, entry), leaf in zip(self.entries.items(), leaves, strict=True):
            own[int(key)] = entry(leaf)
        out = self.body(tree_unflatten(own, self.structure))
        return [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]


def _is_probed(leaf: Any) -> bool:
    return isinstance(leaf, Tensor) and leaf.is_floating_point() and leaf.ndim > 1


def _entry(leaf: Tensor) -> nn.Module:
    """A layer that keeps a tensor's shape: (B, C, Y, X), or (B, …, C)."""
    if leaf.ndim == 4:
        return nn.Conv2d(leaf.shape[1], leaf.shape[1], 1, device=leaf.device, dtype=leaf.dtype)
    return nn.Linear(leaf.shape[-1], leaf.shape[-1], device=leaf.device, dtype=leaf.dtype)


@torch.enable_grad()
def coupled_channels(body: nn.Module, state: Any, left: dict[str, str]) -> list[Coupled]:
    """Its groups; ``left`` takes the layers whose channels are lost on their way, and why."""
    probe = _Probe(body, state)
    leaves = tuple(leaf for leaf in tree_flatten(state)[0] if _is_probed(leaf))
    graph = torch_pruning.DependencyGraph()
    graph.build_dependency(probe, example_inputs=leaves, verbose=False)
    names = {module: name for name, module in body.named_modules()}
    groups: list[Coupled] = []
    seen = set[str]()
    for module in [m for m in names if isinstance(m, nn.Conv2d | nn.Linear)]:
        if module not in graph.module2node or names[module] in seen:
            continue
        try:
            # one channel shows quickly what all are in: most are of the state
            found = _members(graph, module, [0], probe, names)
            if found.might_be_narrowed:
                found = _members(graph, module, list(range(outputs(module))), probe, names)
        except _TooMany as error:
            left[names[module]] = str(error)
            continue
        seen |= set(found.makers)
        groups.append(found)
    return groups


def _members(
    graph: Any,
    module: nn.Module,
    channels: list[int],
    probe: _Probe,
    names: Mapping[nn.Module, str],
) -> Coupled:
    """What torch-pruning would prune with some output channels of a layer."""
    layers, others, in_state = [], [], False
    for (node, prune), roots in _followed(graph, module, channels).items():
        target = node.module
        if target in names:
            found = tuple(sorted(roots))
            rising = tuple(roots[channel] for channel in found)
            norm = _norm_after(node, names)
            is_output = graph.is_out_channel_pruning_fn(prune)
            layers.append(Member(names[target], is_output, found, rising, norm))
        elif isinstance(target, nn.Parameter):
            known = (n for n, p in probe.body.named_parameters() if p is target)
            others.append(next(known, str(node.name).split(" ")[0]))
        in_state |= any(target is entry for entry in probe.entries.values())
        in_state |= node.type == torch_pruning.ops.OPTYPE.OUTPUT
    return Coupled(tuple(layers), in_state, tuple(others))


def _followed(
    graph: Any, module: nn.Module, channels: list[int]
) -> dict[tuple[Any, Any], dict[int, int]]:
    """The nodes to which channels lead, and for each the channel of the root that leads there.

    It is the graph's own ``get_pruning_group``, which takes hours where reshapes multiply channels,
    with each channel of a node followed once.

    Raises:
        _TooMany: reshapes multiply them beyond :data:`_MOST`.
    """
    prune = graph.get_pruner_of_module(module).prune_out_channels
    if isinstance(module, nn.Conv2d) and module.groups == module.out_channels > 1:
        prune = torch_pruning.prune_depthwise_conv_out_channels
    root = graph.module2node[module]
    followed = {(root, prune): {channel: channel for channel in channels}}
    pending = [(root, prune, [_HybridIndex(idx=i, root_idx=i) for i in channels])]
    steps = 0
    while pending:
        node, prune, indices = pending.pop()
        for dependency in node.dependencies:
            if not dependency.is_triggered_by(prune):
                continue
            mapped = indices
            for mapping in dependency.index_mapping:
                mapped = mapped if mapping is None else mapping(mapped)
                steps += len(mapped)
                if steps > _MOST:
                    raise _TooMany("its channels are reshaped into too many")
            known = followed.setdefault((dependency.target, dependency.handler), {})
            new = [index for index in mapped if index.idx not in known]
            known.update((index.idx, index.root_idx) for index in new)
            if new:
                pending.append((dependency.target, dependency.handler, new))
    return {where: roots for where, roots in followed.items() if roots}


def _norm_after(node: Any, names: Mapping[nn.Module, str]) -> str | None:
    """The batch normalisation that alone takes what a node of torch-pruning's graph gives."""
    after = [other.module for other in node.outputs]
    is_norm = len(after) == 1 and isinstance(after[0], nn.BatchNorm2d)
    return names.get(after[0]) if is_norm else None
