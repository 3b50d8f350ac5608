"""States of several tensors are walked, cut and joined like one."""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves, tree_map

from paretopath.elastic.batched import Batched, concatenated


@dataclass(frozen=True)
class Inner(Batched):
    x: Tensor


@dataclass(frozen=True)
class Outer(Batched):
    images: Tensor
    levels: tuple[Tensor, ...]
    targets: Inner | None
    head: Any


def batch(count: int, targets: bool = True) -> Outer:
    x = torch.arange(count).float()
    return Outer(x, (x[:, None], x[:, None] * 2), Inner(x + 1) if targets else None, "head")


def test_tensors_of_all_depths_are_walked_and_the_rest_goes_along() -> None:
    doubled = tree_map(lambda tensor: tensor * 2, batch(3))
    assert len(tree_leaves(batch(3))) == 4
    assert doubled.targets.x.tolist() == [2, 4, 6]
    assert doubled.head == "head"


def test_none_is_no_leaf() -> None:
    assert len(tree_leaves(batch(3, targets=False))) == 3
    assert tree_map(lambda tensor: tensor.detach(), batch(3, targets=False)).targets is None


def test_a_batch_has_a_length_and_is_cut() -> None:
    assert len(batch(5)) == 5
    assert batch(5)[1:3].levels[1].tolist() == [[2], [4]]
    assert batch(5)[torch.tensor([4, 0])].targets.x.tolist() == [5, 1]


def test_batches_are_joined_to_one() -> None:
    whole = concatenated([batch(5)[:2], batch(5)[2:]])
    pairs = zip(tree_leaves(whole), tree_leaves(batch(5)), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert concatenated([torch.zeros(2, 3), torch.ones(1, 3)]).shape == (3, 3)


def test_a_batch_moves_to_a_device() -> None:
    assert batch(2).to("meta").levels[0].device.type == "meta"
