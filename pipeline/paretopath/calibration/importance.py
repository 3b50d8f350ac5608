"""Channels and heads sorted once by importance, the model's function unchanged: the first k are the
best k.

How much each weight matters comes from its size or from the loss's gradient; torch-pruning's groups
(Fang et al., "DepGraph", CVPR 2023) say which weights stand and fall with a channel.
"""

import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch_pruning as tp
from torch import Tensor, nn

from paretopath.elastic import ChannelGroup, ElasticModel, ElasticSpace, State, Unit
from paretopath.errors import InvalidValueError


def sort_by_magnitude(model: ElasticModel) -> None:
    """Reorders, in place, every group of channels that a decision narrows, most important first.

    Importance is the group magnitude: the 2-norm over all layers that a channel couples (Fang et
    al., eq. 6), summed over the channels that stand and fall together.

    Args:
        model: on its full path; its outputs stay as they are.
    """
    magnitude = tp.importance.GroupMagnitudeImportance(normalizer=None)
    _, coupled = _coupled_channels(model)
    _sort(coupled, [channels.scores(magnitude) for channels in coupled])


def sort_by_taylor(
    model: ElasticModel,
    batches: Iterable[tuple[Tensor, Any]],
    loss: Callable[[Any, Any], Tensor],
) -> None:
    """The same by what the loss of the full path would lose, to first order in the weights.

    In each layer that a channel couples, the weights w that go with it change the loss by about
    |sum w dL/dw| (Molchanov et al., "Importance Estimation for Neural Network Pruning", CVPR 2019,
    eq. 8, as an absolute value); the mean over layers and over batches. Batch by batch, because
    the gradient over all of them vanishes where training has converged.

    Args:
        model: on its full path; its outputs stay as they are.
        batches: (images (B, C, Y, X), targets), on any device.
        loss: of the full path's output and targets, a scalar.

    Raises:
        InvalidValueError: no images.
    """
    taylor = tp.importance.GroupTaylorImportance(normalizer=None, multivariable=True)
    static, coupled = _coupled_channels(model)
    if not coupled:
        return
    device = next(static.parameters()).device
    totals: list[Tensor] | None = None
    with torch.enable_grad():
        for images, targets in batches:
            static.zero_grad()
            loss(static(images.to(device)), _moved(targets, device)).backward()
            found = [channels.scores(taylor) for channels in coupled]
            totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
    if totals is None:
        raise InvalidValueError("Taylor importance needs at least one batch, but got none")
    _sort(coupled, totals)


@dataclass(frozen=True)
class _Coupled:
    """A group of channels and the parameters, of a plain copy, that stand and fall with each."""

    unit: Unit
    group: ChannelGroup
    parameters: Any  # of torch-pruning, in the order of the group's channels

    def scores(self, importance: Callable[[Any], Tensor]) -> Tensor:
        """(shape[axis],) the importance of each entry of the group's axis."""
        shape, axis = self.group.shape, self.group.axis
        others = [other for other in range(len(shape)) if other != axis]
        scores = importance(self.parameters).reshape(shape)
        return scores.sum(others) if others else scores


def _coupled_channels(model: ElasticModel) -> tuple[nn.Module, list[_Coupled]]:
    """A plain copy of the full path, and all groups with what they couple in it."""
    assert isinstance(model.space, ElasticSpace)
    static, coupled = nn.Sequential(), []
    device = next(model.parameters()).device
    state: State = torch.zeros(1, *model.space.input_shape, device=device)
    for step in model.steps(model.space.full):
        plain = step.extract().eval()
        groups = step.unit.channel_groups()
        if groups:
            graph = _dependencies(plain, state)
            coupled += [_Coupled(step.unit, g, _parameters(graph, plain, g)) for g in groups]
        with torch.no_grad():
            state = plain(state)
        static.append(plain)
    return static, coupled


def _dependencies(module: nn.Module, state: State) -> tp.DependencyGraph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parameters outside layers: none is pruned here
        return tp.DependencyGraph().build_dependency(module, state)


def _parameters(graph: tp.DependencyGraph, module: nn.Module, group: ChannelGroup) -> Any:
    layer = module.get_submodule(group.layer)
    prune = graph.get_pruner_of_module(layer).prune_out_channels
    return graph.get_pruning_group(layer, prune, list(range(graph.get_out_channels(layer))))


def _sort(coupled: list[_Coupled], scores: list[Tensor]) -> None:
    for channels, own in zip(coupled, scores, strict=True):
        order = torch.argsort(own, descending=True, stable=True)
        channels.unit.permute(channels.group, order)


def _moved(targets: Any, device: torch.device) -> Any:
    return torch.utils._pytree.tree_map(
        lambda value: value.to(device) if isinstance(value, Tensor) else value, targets
    )
