"""Batch-normalisation statistics of single paths, measured on images, kept beside the shared ones.

An elastic model holds one set of running statistics, that of its fullest layers. The activations of
a narrower path are distributed otherwise, and its accuracy means little until its own statistics
are measured (Yu and Huang, "Universally Slimmable Networks", arXiv 1903.05134: post-statistics of
batch normalisation; Once-For-All does so for each sub-network, ``set_running_statistics``).
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from pipeline.elastic import ElasticModel
from pipeline.errors import CheckpointError, InvalidValueError
from pipeline.evaluate import Batch, Evaluator
from pipeline.paths import ExecutionPath, Value
from pipeline.tasks.task import Score
from pipeline.weights import read_state, write_state

_SUFFIXES = (".running_mean", ".running_var")


@dataclass(frozen=True)
class PathStatistics:
    """What batch normalisations subtract and divide by on one path.

    Attributes:
        path: canonical.
        moments: for each normalisation that the path runs, by its module's name: mean and (biased)
            variance, (C,) each, float32, as many channels as the path has there.
    """

    path: ExecutionPath
    moments: Mapping[str, tuple[Tensor, Tensor]]

    def save(self, file: Path | str) -> None:
        """Writes the statistics as safetensors, some hundred kilobytes; the path is not in it."""
        tensors = {
            name + suffix: tensor
            for name, pair in self.moments.items()
            for suffix, tensor in zip(_SUFFIXES, pair, strict=True)
        }
        write_state(file, tensors)

    @classmethod
    def load(cls, file: Path | str, path: ExecutionPath) -> Self:
        """Reads what :meth:`save` wrote for a path.

        Raises:
            CheckpointError: no such file, or it holds something else.
        """
        state = read_state(file)
        mean, variance = _SUFFIXES
        names = [name.removesuffix(mean) for name in state if name.endswith(mean)]
        if not names or set(state) != {name + s for name in names for s in _SUFFIXES}:
            raise CheckpointError(f"{file} does not hold batch-normalisation statistics")
        return cls(path, {name: (state[name + mean], state[name + variance]) for name in names})


@torch.no_grad()
def recalibrate(
    model: ElasticModel, path: Mapping[str, Value], batches: Iterable[tuple[Tensor, Any]]
) -> PathStatistics:
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
    norms = _norms(model)
    sums: dict[str, tuple[Tensor, Tensor]] = {}
    images_seen = 0
    with ExitStack() as stack:
        stack.enter_context(model.active(path))
        stack.enter_context(_restored(norms.values()))
        stack.callback(model.train, model.training)
        model.eval()
        for name, norm in norms.items():
            hook = norm.register_forward_pre_hook(_Watcher(name, sums))
            stack.callback(hook.remove)
        for images, _ in batches:
            model(images)
            images_seen += len(images)
        measured = model.path
    if not images_seen:
        raise InvalidValueError("recalibration needs at least one image, but got none")
    moments = {name: (m / images_seen, v / images_seen) for name, (m, v) in sums.items()}
    return PathStatistics(measured, moments)


@contextmanager
def recalibrated(model: ElasticModel, statistics: PathStatistics) -> Iterator[ElasticModel]:
    """Runs a path with its own statistics inside the block; everything is as before after it.

    Inside, ``model(images)`` runs the path and ``model.extract(statistics.path)`` copies its
    statistics. Nothing is copied on the way in or out.
    """
    norms = _norms(model)
    with model.active(statistics.path), _restored(norms.values()):
        for name, (mean, variance) in statistics.moments.items():
            norm = norms[name]
            assert norm.running_mean is not None
            device = norm.running_mean.device
            norm.running_mean, norm.running_var = mean.to(device), variance.to(device)
        yield model


class RecalibratingEvaluator:
    """Scores paths as :class:`~pipeline.evaluate.Evaluator` does, each with its own statistics.

    Args:
        evaluate: the evaluator, with its model.
        batches: calibration images, iterated once for each path; on any device.
    """

    def __init__(self, evaluate: Evaluator, batches: Iterable[Batch]) -> None:
        self.evaluate = evaluate
        self.batches = batches

    def __call__(self, paths: Sequence[Mapping[str, Value]]) -> list[Score | InvalidValueError]:
        """The score of each canonical path, in order; see :meth:`Evaluator.__call__`."""
        scores: list[Score | InvalidValueError] = []
        for path in paths:
            with recalibrated(self.evaluate.model, self.statistics(path)):
                scores += self.evaluate([path])
        return scores

    def statistics(self, path: Mapping[str, Value]) -> PathStatistics:
        """The statistics with which a path is scored."""
        device = self.evaluate.device
        moved = ((images.to(device, non_blocking=True), y) for images, y in self.batches)
        return recalibrate(self.evaluate.model, path, moved)


class _Watcher:
    """Sets a normalisation's statistics to its input's moments and adds them up."""

    def __init__(self, name: str, sums: dict[str, tuple[Tensor, Tensor]]) -> None:
        self.name = name
        self.sums = sums

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].float()  # (B, C, Y, X)
        variance, mean = torch.var_mean(x, dim=(0, 2, 3), correction=0)
        norm.running_mean, norm.running_var = mean, variance
        old = self.sums.get(self.name, (0.0, 0.0))
        self.sums[self.name] = (old[0] + len(x) * mean, old[1] + len(x) * variance)


def _norms(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}


@contextmanager
def _restored(norms: Iterable[nn.BatchNorm2d]) -> Iterator[None]:
    """Gives each normalisation the very tensors back that it had."""
    before = [(norm, norm.running_mean, norm.running_var) for norm in norms]
    try:
        yield
    finally:
        for norm, mean, variance in before:
            norm.running_mean, norm.running_var = mean, variance
