"""Batch-normalisation statistics of single paths, measured on images, kept beside the shared ones.

An elastic model holds one set of running statistics, that of its fullest layers. The activations of
a narrower path are distributed otherwise, and its accuracy means little until its own statistics
are measured (Yu and Huang, "Universally Slimmable Networks", arXiv 1903.05134: post-statistics of
batch normalisation; Once-For-All does so for each sub-network, ``set_running_statistics``).
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from paretopath.elastic import ElasticModel
from paretopath.elastic.batch_norm import batch_norms, channel_moments
from paretopath.elastic.own import PathTensors
from paretopath.errors import InvalidValueError
from paretopath.evaluation.evaluator import Batch
from paretopath.paths import ExecutionPath, Value


@torch.no_grad()
def recalibrate(
    model: ElasticModel, path: Mapping[str, Value], batches: Iterable[tuple[Tensor, Any]]
) -> PathTensors:
    """Measures one path's statistics; the model is left as it was.

    Each batch is normalised by its own moments; the result is their mean over batches, weighted by
    images.

    Args:
        model: on the device of its images.
        path: any path of its space.
        batches: (images (B, C, Y, X), anything); a few hundred images do.

    Raises:
        InvalidValueError: no images.
    """
    norms = batch_norms(model)
    canonical = model.space.canonical(path)
    none = {f"{name}.{which}": None for name in norms for which in ("running_mean", "running_var")}
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    images_seen = 0
    with ExitStack() as stack:
        stack.enter_context(model.active(canonical, PathTensors(canonical, none)))
        stack.callback(model.train, model.training)
        model.eval()
        for name, norm in norms.items():
            hook = norm.register_forward_pre_hook(_Watcher(name, sums))
            stack.callback(hook.remove)
        for images, _ in batches:
            model(images)
            images_seen += len(images)
    if not images_seen:
        raise InvalidValueError("recalibration needs at least one image, but got none")
    tensors: dict[str, Tensor | None] = {}
    for name, (mean, variance) in sums.items():
        tensors[f"{name}.running_mean"] = mean / images_seen
        tensors[f"{name}.running_var"] = variance / images_seen
    return PathTensors(canonical, tensors)


@torch.no_grad()
def settle_statistics(
    model: ElasticModel, paths: Sequence[Mapping[str, Value]], batches: Iterable[Batch]
) -> None:
    """Puts measured statistics in place of the running averages that training left, which lag
    behind its last steps (Wu and Johnson, "Rethinking 'Batch' in BatchNorm", arXiv 2105.07576,
    section 3).

    Args:
        model: changed in place.
        paths: whose statistics the model's own shall be; where two run the same normalisation, the
            last one's.
        batches: training images as they are evaluated, iterated once for each path; on any device.
    """
    for own in Recalibration(model, batches)(paths).values():
        for name, tensor in own.tensors.items():
            if tensor is not None:
                model.get_buffer(name).copy_(tensor)


class Recalibration:
    """Gives paths batch-normalisation statistics of their own: a
    :class:`~paretopath.evaluation.fitted.Fit`.

    Args:
        model: on its device.
        batches: calibration images, iterated once for each path; on any device.
        trained_on: the path whose statistics the model's own are, which is given none; None if
            training mixed those of several paths.
    """

    def __init__(
        self,
        model: ElasticModel,
        batches: Iterable[Batch],
        *,
        trained_on: ExecutionPath | None = None,
    ) -> None:
        self.model = model
        self.batches = batches
        self.trained_on = trained_on

    def __call__(self, paths: Sequence[Mapping[str, Value]]) -> dict[ExecutionPath, PathTensors]:
        """The statistics of each canonical path."""
        device = next(self.model.parameters()).device
        wanted = [ExecutionPath(path) for path in paths if path != self.trained_on]
        return {
            path: recalibrate(
                self.model,
                path,
                ((images.to(device, non_blocking=True), y) for images, y in self.batches),
            )
            for path in wanted
        }


class _Watcher:
    """Adds up the moments of a normalisation's inputs."""

    def __init__(self, name: str, sums: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.name = name
        self.sums = sums

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]  # (B, C, Y, X)
        mean, variance = channel_moments(x)
        old = self.sums.get(self.name, (0.0, 0.0))
        self.sums[self.name] = (old[0] + len(x) * mean, old[1] + len(x) * variance)
