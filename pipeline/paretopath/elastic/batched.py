"""What units hand on when it is more than one tensor: dataclasses of tensors, batch first."""

from collections.abc import Sequence
from dataclasses import fields
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils import _pytree


class Batched:
    """Base of frozen dataclasses whose tensors have the batch as their first dimension.

    Each subclass is a node of PyTorch's trees: tensors, tuples, lists, dictionaries and other
    :class:`Batched` that its fields hold are walked, moved and indexed; whatever else they hold
    (None, numbers, modules) goes along as it is. So the engine shares, keeps, detaches and counts
    such states as it does tensors.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        _pytree.register_pytree_node(
            cls, _flatten, lambda values, context: _unflatten(cls, values, context)
        )

    def __len__(self) -> int:
        """Images of the batch."""
        return len(_pytree.tree_leaves(self)[0])

    def __getitem__(self, images: Any) -> Self:
        """Some images, by a slice or (n,) numbers or flags."""
        chosen: Self = _pytree.tree_map(lambda tensor: tensor[images], self)
        return chosen

    def to(self, device: torch.device | str, *, non_blocking: bool = False) -> Self:
        """The same on another device."""
        moved: Self = _pytree.tree_map(
            lambda tensor: tensor.to(device, non_blocking=non_blocking), self
        )
        return moved

    def pin_memory(self) -> Self:
        """The same in page-locked memory, as loaders ask for before a copy to a GPU."""
        pinned: Self = _pytree.tree_map(lambda tensor: tensor.pin_memory(), self)
        return pinned


def concatenated(batches: Sequence[Any]) -> Any:
    """One batch of several: tensors, or trees of them that are built alike.

    Args:
        batches: at least one.
    """
    return _pytree.tree_map(lambda *parts: torch.cat(parts), *batches)


def _is_walked(value: Any) -> bool:
    return isinstance(value, Tensor | Batched | tuple | list | dict)


def _flatten(node: Any) -> tuple[list[Any], Any]:
    values = [(field.name, getattr(node, field.name)) for field in fields(node)]
    walked = [name for name, value in values if _is_walked(value)]
    kept = [(name, value) for name, value in values if not _is_walked(value)]
    return [getattr(node, name) for name in walked], (tuple(walked), tuple(kept))


def _unflatten(cls: type, values: Any, context: Any) -> Any:
    walked, kept = context
    return cls(**dict(zip(walked, values, strict=True)), **dict(kept))
