"""One pass over calibration images: second moments, the order of channels, re-solved weights.

Each layer that reads narrowed channels is watched on the full path. Its inputs' mean and covariance
then decide which channels go first (:mod:`paretopath.calibration.elimination`) and re-solve its
weights for every width (:mod:`paretopath.elastic.compensation`).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paretopath.calibration.elimination import Eliminated, eliminate
from paretopath.elastic import (
    ElasticConv2d,
    ElasticLayer,
    ElasticLinear,
    ElasticModel,
)
from paretopath.elastic import Unit as ElasticUnit
from paretopath.elastic.channels import columns, permute, reading, segments
from paretopath.elastic.compensation import RIDGE, Compensation, compensate
from paretopath.errors import InvalidValueError
from paretopath.paths import Value
from paretopath.progress import Progress, unheard

POSITIONS = 1024
"""Positions (tokens, pixels) of an image that are sampled for a layer's moments."""


@dataclass(frozen=True)
class Moments:
    """The inputs of one layer over calibration images.

    Attributes:
        mean: (K,) float64.
        covariance: (K, K) float64.
        samples: positions that they rest on.
    """

    mean: Tensor
    covariance: Tensor
    samples: int

    def reordered(self, order: Tensor) -> "Moments":
        """The moments of inputs put in another order: (K,) old index of each new place."""
        return Moments(self.mean[order], self.covariance[order][:, order], self.samples)


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
    for number, unit in enumerate(units):
        progress(number, len(units))
        layers = _readers(unit)
        known = {name: moments[layer] for name, layer in layers.items() if layer in moments}
        if reorder:
            known = _reorder(unit, known, ridge)
        for name, found in known.items() if solve else ():
            weight = layers[name].weight
            compensate(
                layers[name],
                Compensation(
                    found.mean.to(weight),
                    found.covariance.to(weight),
                    segments=segments(layers[name]),
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
) -> dict[nn.Module, Moments]:
    """The moments of the inputs of every layer that reads narrowed channels.

    Args:
        model: in evaluation mode while this runs.
        batches, paths, positions, seed: see :func:`calibrate`.
    """
    layers = {layer for unit in model.chain for layer in _readers(unit).values()}
    if not layers:
        return {}
    sums: dict[nn.Module, _Sums] = {}
    generator = torch.Generator().manual_seed(seed)

    def watch(layer: nn.Module, inputs: tuple[Any, ...]) -> None:
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
    return {layer: found.moments() for layer, found in sums.items()}


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

    def moments(self) -> Moments:
        shift = self.total / self.count
        covariance = self.products / self.count - torch.outer(shift, shift)
        mean = self.pivot.double() + shift
        # made in inference mode: plain copies can be changed and differentiated through later
        with torch.inference_mode(False):
            return Moments(mean.cpu().clone(), covariance.cpu().clone(), self.count)


@contextmanager
def _hooks(layers: Iterable[nn.Module], watch: Any) -> Iterator[None]:
    handles = [layer.register_forward_pre_hook(watch) for layer in layers]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _rows(x: Tensor, layer: nn.Module, positions: int, generator: torch.Generator) -> Tensor | None:
    """Sampled positions of an input as rows (n, K); None where it is narrower than the layer's."""
    if isinstance(layer, ElasticConv2d):
        x = x.movedim(1, -1)
    full = sum(segments(layer)) if isinstance(layer, ElasticLinear | ElasticConv2d) else 0
    if x.shape[-1] != full:
        return None
    x = x.reshape(len(x), -1, full)  # (B, positions, K)
    if x.shape[1] > positions:
        chosen = torch.randperm(x.shape[1], generator=generator)[:positions]
        x = x[:, chosen.to(x.device)]
    return x.reshape(-1, full).float()


def _readers(unit: ElasticUnit) -> dict[str, ElasticLayer]:
    """The layers of a unit that read narrowed channels, by name."""
    readers: dict[str, ElasticLayer] = {}
    for group in unit.channel_groups():
        for reader in group.readers:
            readers[reader.layer] = reading(unit, reader)
    return readers


def _reorder(unit: ElasticUnit, moments: Mapping[str, Moments], ridge: float) -> dict[str, Moments]:
    """Puts each group's channels in the order in which they are worth keeping; moments follow."""
    layers = _readers(unit)
    groups = [
        group
        for group in unit.channel_groups()
        if group.readers and all(reader.layer in moments for reader in group.readers)
    ]
    read = [
        {reader.layer: columns(unit, group, reader) for reader in group.readers} for group in groups
    ]
    problems = {
        name: Eliminated(layers[name].weight.detach(), found.covariance, ridge)
        for name, found in moments.items()
    }
    orders = eliminate(problems, read)
    moved = {name: torch.arange(len(found.mean)) for name, found in moments.items()}
    for group, blocks_read, order in zip(groups, read, orders, strict=True):
        permute(unit, group, order)
        for name, blocks in blocks_read.items():
            moved[name][blocks.flatten()] = blocks[order].flatten()
    return {name: found.reordered(moved[name]) for name, found in moments.items()}
