"""How many images can walk a path at a time in a given memory."""

import weakref
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from paretopath.elastic.prefixes import PrefixTree
from paretopath.elastic.units import Chain, State
from paretopath.paths import Value

LEAST_IMAGES = 8
"""Run whatever memory they take: fewer say nothing about others."""

_COPIES = 2.0


class PeakMemory(TorchDispatchMode):
    """Counts what the tensors that operations make take, on any device, ``meta`` among them.

    Attributes:
        peak: bytes, of those alive at a time.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._alive = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Runs an operation and notes the storages of its results."""
        result = function(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return result

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._alive += size
        self.peak = max(self.peak, self._alive)
        weakref.finalize(storage, self._release, key, size)

    def _release(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._alive -= size


@torch.no_grad()
def images_that_fit(
    model: Chain, path: Mapping[str, Value], image: State, memory_bytes: float
) -> int:
    """How many images repair may look at, so that a walk down a path stays within a memory.

    It follows from the model and the size of images alone, so that a search is the same on every
    machine.

    Args:
        model: on the device of the image.
        path: canonical; the full one takes most.
        image: one, as a batch.
        memory_bytes: for what a walk makes; weights and what is kept are apart.

    Returns:
        At least :data:`LEAST_IMAGES`.
    """
    units = model.units
    training = units.training
    units.eval()
    try:
        with PeakMemory() as memory:
            for _ in PrefixTree(model, [path]).run(image):
                pass
    finally:
        units.train(training)
    return max(LEAST_IMAGES, int(memory_bytes / max(memory.peak, 1)))
