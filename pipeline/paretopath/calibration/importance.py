"""Reorders channels so that the most important come first: of a layer's channels the first k are
then the best k.

How much each weight matters comes from its size or from the loss's gradient; a unit's groups say
which weights stand and fall with a channel (as in Fang et al., "DepGraph", CVPR 2023).
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paretopath.elastic import ElasticModel
from paretopath.elastic.channels import Place, columns, permute, reading, reordered_together
from paretopath.errors import InvalidValueError


def sort_by_magnitude(model: ElasticModel) -> None:
    """Reorders, in place, every group of channels that a decision narrows, most important first.

    Importance is the group magnitude: the squared 2-norm over the layers that a channel couples
    (Fang et al., eq. 6), summed over the channels that stand and fall together.

    Args:
        model: its full path's outputs stay as they are.
    """
    for places in _groups(model):
        parts = _coupled(places, with_norms=True)
        squares = {part.weight: part.weight.detach().square() for part in parts}
        _sort(places, _scores(places, parts, squares))


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
        model: in evaluation mode while this runs; its full path's outputs stay as they are.
        batches: (images (B, C, Y, X), targets), on any device.
        loss: of the full path's output and targets, a scalar.

    Raises:
        InvalidValueError: no images.
    """
    groups = [(places, _coupled(places)) for places in _groups(model)]
    if not groups:
        return
    weights = list(dict.fromkeys(part.weight for _, parts in groups for part in parts))
    totals: list[Tensor] | None = None
    for products in _products(model, weights, batches, loss):
        found = [_scores(places, parts, products) for places, parts in groups]
        totals = [a + b for a, b in zip(totals, found, strict=True)] if totals else found
    if totals is None:
        raise InvalidValueError("Taylor importance needs at least one batch, but got none")
    for (places, _), scores in zip(groups, totals, strict=True):
        _sort(places, scores)


def _products(
    model: ElasticModel,
    weights: Sequence[nn.Parameter],
    batches: Iterable[tuple[Tensor, Any]],
    loss: Callable[[Any, Any], Tensor],
) -> Iterator[dict[nn.Parameter, Tensor]]:
    """For each batch, each weight times its gradient on the full path; no gradient stays."""
    frozen = [weight for weight in weights if not weight.requires_grad]
    training, device = model.training, weights[0].device
    model.eval()
    for weight in frozen:
        weight.requires_grad_(True)
    try:
        for images, targets in batches:
            with torch.enable_grad(), model.active(model.space.full):
                lost = loss(model(images.to(device)), _moved(targets, device))
                gradients = torch.autograd.grad(lost, weights)
            yield {w: w.detach() * g for w, g in zip(weights, gradients, strict=True)}
    finally:
        for weight in frozen:
            weight.requires_grad_(False)
        model.train(training)


@dataclass(frozen=True)
class _Part:
    """A weight that a group of channels couples.

    Attributes:
        weight: (outputs, inputs, …), or (channels,) of a normalisation.
        columns: the inputs that are the group's channels; None where they are its outputs.
    """

    weight: nn.Parameter
    columns: Tensor | None

    def by_channel(self, values: Tensor) -> Tensor:
        """(channels, n) values shaped as the weight, by the channel that they belong to."""
        rows = values if self.columns is None else values[:, self.columns].transpose(0, 1)
        return rows.reshape(len(rows), -1)


def _groups(model: ElasticModel) -> list[list[Place]]:
    """The groups of all units that the full path runs: each with its parts, in units."""
    return reordered_together(step.unit for step in model.steps(model.space.full))


def _coupled(places: Sequence[Place], *, with_norms: bool = False) -> list[_Part]:
    """The weights that stand and fall with each channel, as torch-pruning 1.6 counts them: no
    depthwise filters, no biases, and the scales of normalisations in a magnitude alone.
    """
    parts = []
    for unit, group in ((place.unit, place.group) for place in places):
        for name in group.makers:
            layer = unit.get_submodule(name)
            is_depthwise = isinstance(layer, nn.Conv2d) and layer.groups > 1
            if with_norms if isinstance(layer, nn.BatchNorm2d) else not is_depthwise:
                parts.append(_Part(layer.get_parameter("weight"), None))
        for reader in group.readers:
            weight = reading(unit, reader).get_parameter("weight")
            read = columns(unit, group, reader).flatten().to(weight.device)
            parts.append(_Part(weight, read))
    return parts


def _scores(
    places: Sequence[Place], parts: Sequence[_Part], values: Mapping[nn.Parameter, Tensor]
) -> Tensor:
    """(entries,) |sum| of the values of each channel, over an entry's channels, mean over parts."""
    entries = places[0].group.entries
    alone = [part.by_channel(values[part.weight]).sum(1).abs() for part in parts]
    return torch.stack([each.reshape(entries, -1).sum(1) for each in alone]).mean(0)


def _sort(places: Sequence[Place], scores: Tensor) -> None:
    order = torch.argsort(scores, descending=True, stable=True)
    for place in places:
        permute(place.unit, place.group, order)


def _moved(targets: Any, device: torch.device) -> Any:
    return torch.utils._pytree.tree_map(
        lambda value: value.to(device) if isinstance(value, Tensor) else value, targets
    )
