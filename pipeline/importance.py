"""Channels and heads sorted once by importance, the model's function unchanged: the first k are the
best k.
"""

import warnings

import torch
import torch_pruning as tp
from torch import Tensor, nn

from pipeline.elastic import ChannelGroup, ElasticModel, State


def sort_channels(model: ElasticModel, images: Tensor) -> None:
    """Reorders, in place, every group of channels that a decision narrows, most important first.

    Importance is torch-pruning's group magnitude (the 2-norm over all layers that a channel
    couples: Fang et al., "DepGraph", CVPR 2023, eq. 6), summed over the channels that stand and
    fall together.

    Args:
        model: on its full path; its outputs stay as they are.
        images: a batch that shapes the dependency graph; its values don't matter.
    """
    state: State = images
    for step in model.steps(model.space.full):
        groups = step.unit.channel_groups()
        if groups:
            static = step.unit.extract(dict(step.choice))
            graph = _dependencies(static, state)
            for group in groups:
                scores = _importance(graph, static, group)
                order = torch.argsort(scores, descending=True, stable=True)
                step.unit.permute(group, order)
        with torch.no_grad():
            state = step(state)


def _dependencies(module: nn.Module, state: State) -> tp.DependencyGraph:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # parameters outside layers: none is pruned here
        return tp.DependencyGraph().build_dependency(module, state)


def _importance(graph: tp.DependencyGraph, module: nn.Module, group: ChannelGroup) -> Tensor:
    """(shape[axis],) the importance of each entry of the group's axis."""
    layer = module.get_submodule(group.layer)
    prune = graph.get_pruner_of_module(layer).prune_out_channels
    channels = list(range(graph.get_out_channels(layer)))
    coupled = graph.get_pruning_group(layer, prune, channels)
    scores: Tensor = tp.importance.GroupMagnitudeImportance(normalizer=None)(coupled)
    others = [axis for axis in range(len(group.shape)) if axis != group.axis]
    scores = scores.reshape(group.shape)
    return scores.sum(others) if others else scores
