"""The batch normalisations of a model, and the folder with those statistics that single paths have.

They are measured by :mod:`paretopath.evaluation.batch_norm`.
"""

from pathlib import Path

from torch import nn

from paretopath.elastic.layers import ElasticBatchNorm2d
from paretopath.elastic.own import PathTensors
from paretopath.paths import ExecutionPath


class StatisticsFolder:
    """Statistics of paths on disk, a file each.

    Args:
        folder: made when the first are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, path: ExecutionPath) -> PathTensors | None:
        """A path's statistics, or None if none are kept."""
        file = self._file(path)
        return PathTensors.load(file, path) if file.is_file() else None

    def keep(self, statistics: PathTensors) -> None:
        """Writes a path's statistics."""
        self.folder.mkdir(parents=True, exist_ok=True)
        statistics.save(self._file(statistics.path))

    def _file(self, path: ExecutionPath) -> Path:
        return self.folder / f"{path.id}.safetensors"


def batch_norms(model: nn.Module) -> dict[str, ElasticBatchNorm2d]:
    """The normalisations of an elastic model, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, ElasticBatchNorm2d)}
