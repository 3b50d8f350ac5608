"""One pass over calibration images: second moments, the order of channels, re-solved weights.

Each layer that reads narrowed channels is watched on the full path. Its inputs' mean and covariance
then decide which channels go first (:mod:`paretopath.calibration.elimination`) and re-solve its
weights for every width (:mod:`paretopath.elastic.compensation`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.calibration.elimination import Eliminated, eliminate
from paretopath.elastic import (
    ElasticConv2d,
    ElasticLayer,
    ElasticLinear,
    ElasticModel,
)
from paretopath.elastic import Unit as ElasticUnit
from paretopath.elastic.channels import (
    Place,
    columns,
    permute,
    reading,
    reordered_together,
    segments,
)
from paretopath.elastic.compensation import RIDGE, Compensation, compensate
from paretopath.errors import InvalidValueError
from paretopath.paths import Value
from paretopath.progress import Progress, unheard

POSITIONS = 1024
"""Positions (tokens, pixels) of an image that are sampled for a layer's moments."""

MOST_PATCH_INPUTS = 1152
"""Inputs of a filter, all taps counted, up to which its patches are looked at: 10 MB of products.
Of larger ones single pixels are, as if its taps were layers of their own."""


@dataclass(frozen=True)
class Moments:
    """The inputs of one layer over calibration images: K channels, in a patch as many times as the
    filter has taps.

    Attributes:
        mean: (K * taps,) float64, in the weight's order.
        covariance: (K * taps, K * taps) float64.
        samples: positions that they rest on.
        taps: of the patches; 1 where single positions were looked at.
    """

    mean: Tensor
    covariance: Tensor
    samples: int
    taps: int = 1

    def inputs(self, channels: Tensor) -> Tensor:
        """(n, width * taps) the inputs that are channels (n, width)."""
        return (channels[..., None] * self.taps + torch.arange(self.taps)).flatten(1)

    def of_channels(self) -> "Moments":
        """The moments of the channels at one position, the middle of the patch."""
        middle = slice(self.taps // 2, None, self.taps)
        return Moments(self.mean[middle], self.covariance[middle, middle], self.samples)

    def reordered(self, order: Tensor) -> "Moments":
        """The moments of channels put in another order: (K,) old index of each new place."""
        moved = self.inputs(order[:, None]).flatten()
        return replace(self, mean=self.mean[moved], covariance=self.covariance[moved][:, moved])


def calibrate(
    model: ElasticModel,
    batches: Iterable[tuple[Tensor, Any]],
    *,
    paths: Sequence[Mapping[str, Value]] = (),
    reorder: bool = True,
    solve: bool = True,
    positions: int = POSITIONS,
    ridge: float = RIDGE,
    seed: int = 0,
    progress: Progress = unheard,
) -> list[str]:
    """Orders the channels of a model by least squares and gives its layers re-solved weights.

    A model whose units name no layer that reads narrowed channels stays as it is, and no image is
    run: Once-For-All's, whose narrow paths were trained as they are.

    Args:
        model: changed in place: the full path keeps its function, every narrower one may change.
        batches: (images (B, C, Y, X), anything), on any device; each is run once a path.
        paths: on which layers are watched, besides the full one: needed for units that the full
            path does not run.
        reorder: whether to reorder channels; if not, they stay as they are.
        solve: whether weights are re-solved; if not, channels are reordered alone.
        positions: sampled of each image for a layer that has more.
        ridge: see :class:`~paretopath.elastic.compensation.Compensation`.
        seed: of the positions that are sampled.
        progress: told (units, all units) whose channels are in order and weights re-solved.

    Returns:
        The names of the layers that were watched.

    Raises:
        InvalidValueError: no images.
    """
    for layer in model.modules():
        if isinstance(layer, ElasticLinear | ElasticConv2d):
            compensate(layer, None)
    moments = collect_moments(model, batches, paths=paths, positions=positions, seed=seed)
    units = list(model.chain) if moments else []
    spanning = [places for places in reordered_together(units) if places[0].group.stream]
    for places in spanning if reorder else ():
        moments |= _reorder([places], moments, ridge)
    for number, unit in enumerate(units):
        progress(number, len(units))
        known = {layer: moments[layer] for layer in _readers(unit) if layer in moments}
        if reorder:
            inside = [p for p in reordered_together([unit]) if not p[0].group.stream]
            known |= _reorder(inside, known, ridge)
        for layer, patches in known.items() if solve else ():
            weight, found = layer.weight, patches.of_channels()
            compensate(
                layer,
                Compensation(
                    found.mean.to(weight),
                    found.covariance.to(weight),
                    segments=segments(layer),
                    ridge=ridge,
                ),
            )
    if units:
        progress(len(units), len(units))
    return [name for name, module in model.named_modules() if module in moments]


def draw(
    batches: Iterable[tuple[Tensor, Any]], images: int, progress: Progress = unheard
) -> Iterator[tuple[Tensor, Any]]:
    """The first ``images`` of (images (B, …), targets (B, …)), the last batch cut to fit.

    Args:
        batches: with more images, or all that there are.
        images: how many.
        progress: told (images that were worked on, images).
    """
    done = 0
    progress(done, images)
    for batch, targets in batches:
        yield batch[: images - done], targets[: images - done]
        done = min(images, done + len(batch))
        progress(done, images)
        if done == images:
            return
    progress(done, done)


@torch.inference_mode()
def collect_moments(
    model: ElasticModel,
    batches: Iterable[tuple[Tensor, Any]],
    *,
    paths: Sequence[Mapping[str, Value]] = (),
    positions: int = POSITIONS,
    seed: int = 0,
) -> dict[ElasticLayer, Moments]:
    """The moments of the inputs of every layer that reads narrowed channels.

    Args:
        model: in evaluation mode while this runs.
        batches, paths, positions, seed: see :func:`calibrate`.
    """
    layers = {layer for unit in model.chain for layer in _readers(unit)}
    if not layers:
        return {}
    sums: dict[ElasticLayer, _Sums] = {}
    generator = torch.Generator().manual_seed(seed)

    def watch(layer: Any, inputs: tuple[Any, ...]) -> None:
        x = _rows(inputs[0], layer, positions, generator)
        if x is not None:
            sums.setdefault(layer, _Sums(x)).add(x)

    training, device = model.training, next(model.parameters()).device
    model.eval()
    with _hooks(layers, watch):
        for images, _ in batches:
            for path in (model.space.full, *map(model.space.canonical, paths)):
                with model.active(path):
                    model(images.to(device))
    model.train(training)
    if not sums:
        raise InvalidValueError("calibration needs at least one batch of images, but got none")
    return {layer: found.moments(_taps(layer)) for layer, found in sums.items()}


class _Sums:
    """Sums of inputs and their products, about the first batch's mean so that nothing cancels."""

    def __init__(self, first: Tensor) -> None:
        self.pivot = first.mean(0)
        self.count = 0
        self.total = torch.zeros(first.shape[1], dtype=torch.float64, device=first.device)
        self.products = torch.zeros(
            first.shape[1], first.shape[1], dtype=torch.float64, device=first.device
        )

    def add(self, x: Tensor) -> None:
        """Takes rows (n, K)."""
        x = x - self.pivot
        self.count += len(x)
        self.total += x.sum(0, dtype=torch.float64)
        self.products += x.T @ x

    def moments(self, taps: int) -> Moments:
        shift = self.total / self.count
        covariance = self.products / self.count - torch.outer(shift, shift)
        mean = self.pivot.double() + shift
        # made in inference mode: plain copies can be changed and differentiated through later
        with torch.inference_mode(False):
            return Moments(mean.cpu().clone(), covariance.cpu().clone(), self.count, taps)


@contextmanager
def _hooks(layers: Iterable[nn.Module], watch: Any) -> Iterator[None]:
    handles = [layer.register_forward_pre_hook(watch) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(x: Tensor, layer: nn.Module, positions: int, generator: torch.Generator) -> Tensor | None:
    """Sampled inputs of a layer as rows (n, K * taps); None where x is narrower than the layer's.

    A patch counts for as many positions as it has taps.
    """
    taps = _taps(layer)
    full = sum(segments(layer)) if isinstance(layer, ElasticLinear | ElasticConv2d) else 0
    if x.shape[1 if isinstance(layer, ElasticConv2d) else -1] != full:
        return None
    if taps > 1:
        assert isinstance(layer, ElasticConv2d) and not isinstance(layer.padding, str)
        x = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
    x = x.movedim(1, -1) if isinstance(layer, ElasticConv2d) else x
    x = x.reshape(len(x), -1, full * taps)  # (B, positions, K * taps)
    sampled = max(1, positions // taps)
    if x.shape[1] > sampled:
        chosen = torch.randperm(x.shape[1], generator=generator)[:sampled]
        x = x[:, chosen.to(x.device)]
    return x.reshape(-1, full * taps).float()


def _taps(layer: nn.Module) -> int:
    """The taps of the patches that are looked at; 1 where only single positions are."""
    if not isinstance(layer, ElasticConv2d) or isinstance(layer.padding, str):
        return 1
    is_small = layer.weight[0].numel() <= MOST_PATCH_INPUTS
    return layer.weight[0, 0].numel() if is_small else 1


def _readers(unit: ElasticUnit) -> list[ElasticLayer]:
    """The layers of a unit that read narrowed channels."""
    readers = (reading(unit, r) for group in unit.channel_groups() for r in group.readers)
    return list(dict.fromkeys(readers))


def _reorder(
    groups: Sequence[Sequence[Place]], moments: Mapping[ElasticLayer, Moments], ridge: float
) -> dict[ElasticLayer, Moments]:
    """Puts each group's channels in the order in which they are worth keeping.

    Args:
        groups: each with all places that take one order.
        moments: of layers that read them; groups with others stay as they are.
        ridge: see :func:`calibrate`.

    Returns:
        The moments of the layers that read them, their channels in the new order.
    """
    read = [_columns(places) for places in groups]
    known = [bool(blocks) and all(layer in moments for layer in blocks) for blocks in read]
    groups = [places for places, is_known in zip(groups, known, strict=True) if is_known]
    read = [blocks for blocks, is_known in zip(read, known, strict=True) if is_known]
    layers = list(dict.fromkeys(layer for blocks in read for layer in blocks))
    problems = {}
    for layer in layers:
        weight, found = layer.weight.detach(), moments[layer]
        patches = weight.flatten(1) if found.taps > 1 else weight
        problems[layer] = Eliminated(patches, found.covariance, ridge)
    wanted = [
        {layer: moments[layer].inputs(blocks) for layer, blocks in each.items()} for each in read
    ]
    orders = eliminate(problems, wanted)
    moved = {
        layer: torch.arange(len(moments[layer].mean) // moments[layer].taps) for layer in layers
    }
    for places, blocks_read, order in zip(groups, read, orders, strict=True):
        for place in places:
            permute(place.unit, place.group, order)
        for layer, blocks in blocks_read.items():
            moved[layer][blocks.flatten()] = blocks[order].flatten()
    return {layer: moments[layer].reordered(order) for layer, order in moved.items()}


def _columns(places: Sequence[Place]) -> dict[ElasticLayer, Tensor]:
    """For each layer that reads a group: (entries, width) its input channels of each entry."""
    return {
        reading(place.unit, reader): columns(place.unit, place.group, reader)
        for place in places
        for reader in place.group.readers
    }
