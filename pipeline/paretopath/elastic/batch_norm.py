"""The batch normalisations of a model; measured by :mod:`paretopath.evaluation.batch_norm`."""

from torch import nn

from paretopath.elastic.layers import ElasticBatchNorm2d


def batch_norms(model: nn.Module) -> dict[str, ElasticBatchNorm2d]:
    """The normalisations of an elastic model, by name."""
    return {name: m for name, m in model.named_modules() if isinstance(m, ElasticBatchNorm2d)}
