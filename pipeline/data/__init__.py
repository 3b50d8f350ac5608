"""Data sets as fixed splits of image tensors."""

from pipeline.data.loading import load_data
from pipeline.data.splits import Batch, DataSplits, EpochShuffle, Split, SplitName

__all__ = ["Batch", "DataSplits", "EpochShuffle", "Split", "SplitName", "load_data"]
