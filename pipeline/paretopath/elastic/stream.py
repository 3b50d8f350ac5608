"""What a layer's result is added to: said where the layer is called, for those who re-solve it.

A residual network is a stream that its layers write into: ``skip + through(layer(h))``. Whoever
runs a unit sees tensors come and go, not what is added to what; so the unit says it in its forward,
``layer(h, onto=Onto(skip, through))``. The layer itself makes nothing of it.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True)
class Onto:
    """The stream that a layer writes into.

    Attributes:
        skip: what the layer's result is added to, of its shape; or what gives it, where bringing it
            into that shape takes work that a forward pass can do without.
            Nothing if None, or if that gives None: the result itself shall be the full model's.
        through: what the result passes before it is added: a module that scales and shifts each
            channel, such as a layer scale or a batch normalisation. Nothing if None.
        like: the layer that gives this result on the full path, where it is another one: a unit
            that runs in another form.
        keys: (B, N) integers, one for each position of the result in an image: positions of two
            paths correspond that have the same key, such as the token that a query was made of.
            They correspond by place if None.
    """

    skip: Tensor | Callable[[], Tensor | None] | None = None
    through: Callable[[Tensor], Tensor] | None = None
    like: nn.Module | None = None
    keys: Tensor | None = None

    def stream(self) -> Tensor | None:
        """What the layer's result is added to."""
        return self.skip() if callable(self.skip) else self.skip

    def scale(self, shape: Sequence[int], like: Tensor) -> Tensor:
        """By how much the stream moves with each channel of the result.

        Args:
            shape: of one position of the result: (1, C, 1, 1) of a convolution's, (1, C) otherwise.
            like: has its device and data type.
        """
        ones = like.new_ones(shape)
        moved = ones if self.through is None else self.through(ones) - self.through(0 * ones)
        return moved.flatten()


_solves: ContextVar[bool | None] = ContextVar("whether the layers of the step that runs are solved")
"""None where nobody watches."""


def is_watched() -> bool:
    """Whether somebody asks what layers' results are added to: a unit for which that takes work
    can do without otherwise.
    """
    return _solves.get(None) is not None


def is_solving() -> bool:
    """Whether a path is being re-solved: a unit whose form multiplies layers out runs them as one
    elastic layer then, so that it can be.
    """
    return _solves.get(None) is True


@contextmanager
def watching(*, solves: bool) -> Iterator[None]:
    """What runs inside the block, in this thread, is watched; and its layers re-solved, or not."""
    token = _solves.set(solves)
    try:
        yield
    finally:
        _solves.reset(token)
