"""Data sets as fixed splits of image tensors."""

from pipeline.data.loading import load_data
from pipeline.data.order import EpochBatches, EpochShuffle
from pipeline.data.splits import Batch, DataSplits, Split, SplitName

__all__ = ["Batch", "DataSplits", "EpochBatches", "EpochShuffle", "Split", "SplitName", "load_data"]
