"""Data sets as fixed splits of image tensors."""

from paretopath.data.labels import Column, Targets
from paretopath.data.loading import load_data
from paretopath.data.order import EpochBatches, EpochShuffle
from paretopath.data.splits import Batch, DataSplits, Split, SplitName

__all__ = [
    "Batch",
    "Column",
    "DataSplits",
    "EpochBatches",
    "EpochShuffle",
    "Split",
    "SplitName",
    "Targets",
    "load_data",
]
