"""Batch-norm statistics of single paths: what they are, on disk, and which of them a model uses.

They are measured by :mod:`paretopath.evaluation.batch_norm`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from paretopath.errors import CheckpointError
from paretopath.paths import ExecutionPath
from paretopath.weights.files import read_state, write_state

_SUFFIXES = (".running_mean", ".running_var")


@dataclass(frozen=True)
class PathStatistics:
    """What batch normalisations subtract and divide by on one path.

    Attributes:
        path: canonical.
        moments: for each normalisation that the path runs (there may be none), by its module's
            name: mean and (biased) variance, (C,) each, float32, as many channels as the path has
            there.
    """

    path: ExecutionPath
    moments: Mapping[str, tuple[Tensor, Tensor]]

    def to(self, device: torch.device | str) -> "PathStatistics":
        """The same on a device."""
        moments = {n: (m.to(device), v.to(device)) for n, (m, v) in self.moments.items()}
        return PathStatistics(self.path, moments)

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
        if set(state) != {name + s for name in names for s in _SUFFIXES}:
            raise CheckpointError(f"{file} does not hold batch-normalisation statistics")
        return cls(path, {name: (state[name + mean], state[name + variance]) for name in names})


class StatisticsFolder:
    """Statistics of paths on disk, a file each.

    Args:
        folder: made when the first are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, path: ExecutionPath) -> PathStatistics | None:
        """A path's statistics, or None if none are kept."""
        file = self._file(path)
        return PathStatistics.load(file, path) if file.is_file() else None

    def keep(self, statistics: PathStatistics) -> None:
        """Writes a path's statistics."""
        self.folder.mkdir(parents=True, exist_ok=True)
        statistics.save(self._file(statistics.path))

    def _file(self, path: ExecutionPath) -> Path:
        return self.folder / f"{path.id}.safetensors"


class NormSwitch:
    """Says which statistics the normalisations of a model use: a path's own, or the model's.

    Args:
        model: whose present statistics are its own.
    """

    def __init__(self, model: nn.Module) -> None:
        self._norms = batch_norms(model)
        self._own: dict[str, tuple[Tensor | None, Tensor | None]] = {}  # while others are used

    def use(self, statistics: PathStatistics | None) -> None:
        """Switches to a path's statistics, or back to the model's own with None. Copies nothing if
        they are on the model's device.
        """
        for name, (mean, variance) in self._own.items():
            self._norms[name].running_mean, self._norms[name].running_var = mean, variance
        self._own = {}
        for name, pair in (statistics.moments if statistics else {}).items():
            norm = self._norms[name]
            self._own[name] = (norm.running_mean, norm.running_var)
            norm.running_mean, norm.running_var = (m.to(norm.weight.device) for m in pair)


def batch_norms(model: nn.Module) -> dict[str, nn.BatchNorm2d]:
    """The normalisations of a model that keep statistics, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, nn.BatchNorm2d)}
