"""The order of training images: by seed and epoch alone, so that a resumed job sees the same."""

from collections.abc import Iterator

import numpy as np
import torch
from torch.utils.data import Sampler

from paretopath.errors import InvalidValueError


class EpochShuffle(Sampler[int]):
    """A random order that depends on seed and epoch alone, so that a resumed job sees it again.

    Lightning announces epochs by :meth:`set_epoch`; otherwise each iteration is the next one.

    Args:
        length: how many indices.
        seed: at least 0.
    """

    def __init__(self, length: int, *, seed: int) -> None:
        self.length = length
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Sets the epoch, from 0, of the next iteration."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length

    def __iter__(self) -> Iterator[int]:
        state = np.random.SeedSequence([self.seed, self.epoch]).generate_state(1)
        generator = torch.Generator().manual_seed(int(state[0]))
        self.epoch += 1
        yield from torch.randperm(self.length, generator=generator).tolist()


class EpochBatches(Sampler[list[int]]):
    """Batches of an epoch's order, or one process's share of each of them.

    Several processes together see the batches that one would see alone, so that a job's result does
    not depend on how many processes run it. A last batch that does not divide, or that leaves one
    image to a process, whose batch norms would have nothing to vary over, is filled up with the
    epoch's first images.

    Args:
        sampler: gives the order.
        batch_size: images a batch, of all processes together.
        drop_last: leave out a last batch that is smaller.
        rank, world_size: which process this is, from 0, of how many.

    Raises:
        InvalidValueError: the batch can't be divided evenly.
    """

    def __init__(
        self,
        sampler: EpochShuffle,
        *,
        batch_size: int,
        drop_last: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        if batch_size % world_size:
            raise InvalidValueError(
                f"data.batch_size must be a multiple of the job's {world_size} tasks, "
                f"which share each batch, but got {batch_size}"
            )
        self.sampler = sampler
        self.batch_size = batch_size
        self.drop_last = drop_last
        self.rank = rank
        self.world_size = world_size
        self._skipped = 0

    def start_at(self, epoch: int, batch: int) -> None:
        """Sets where the next iteration begins; the one after it is a whole epoch.

        Args:
            epoch: from 0.
            batch: how many of the epoch's batches were seen before.
        """
        self.sampler.set_epoch(epoch)
        self._skipped = batch

    def __len__(self) -> int:
        """Batches of a whole epoch, whatever the next iteration leaves out."""
        whole, rest = divmod(len(self.sampler), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def __iter__(self) -> Iterator[list[int]]:
        skipped, self._skipped = self._skipped, 0
        order = list(self.sampler)
        for batch in range(skipped, len(self)):
            indices = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            least = max(len(indices), min(2 * self.world_size, self.batch_size))
            wanted = least + -least % self.world_size
            indices += (order * wanted)[: wanted - len(indices)]
            yield indices[self.rank :: self.world_size]
