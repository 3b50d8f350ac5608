"""A split in a fixed random order, so that its first images stand for all of them."""

from collections.abc import Sequence

import torch
from torch.utils.data import Dataset

from paretopath.data.splits import AnySplit, Batch


class Mixed(Dataset[Batch]):
    """The images of a split in a random order that a seed fixes.

    Data sets are often sorted by class, or hold the frames of one film after the other.

    Args:
        split: whose.
        seed: of the order, at least 0.
    """

    def __init__(self, split: AnySplit, *, seed: int) -> None:
        self._split = split
        generator = torch.Generator().manual_seed(seed)
        self._order: list[int] = torch.randperm(len(split), generator=generator).tolist()

    @property
    def is_kept(self) -> bool:
        """Whether the split's images stay in memory."""
        return self._split.is_kept

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, index: int) -> Batch:
        return self._split[self._order[index]]

    def __getitems__(self, indices: Sequence[int]) -> Batch:
        """Images and targets of a batch."""
        return self._split.__getitems__([self._order[index] for index in indices])
