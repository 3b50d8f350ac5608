"""Where the results of layers shall land: the full model's streams, at sampled positions."""

from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor, nn

from paretopath.elastic.layers import ElasticLinear
from paretopath.elastic.repair.rows import Call

ROWS_PER_INPUT = 8
"""Positions that a layer is solved on, for each of its inputs at its fullest."""

LEAST_ROWS = 16384

HELD_OUT = 0.2
"""Share of the images on which the ridge is chosen."""


@dataclass(frozen=True)
class Target:
    """Where a layer's result shall land.

    Attributes:
        positions: of the result, over all images.
        rows: (n,) those that are looked at.
        stream: (n, C) the full model's stream there.
        keys: (n,) which those rows are, over all images; None where they correspond by place.
    """

    positions: int
    rows: Tensor
    stream: Tensor
    keys: Tensor | None = None

    def found_in(self, keys: Tensor) -> Self | None:
        """The part of it whose keys a path's result has too, at the path's rows.

        Args:
            keys: (positions,) of the path's result.

        Returns:
            None where so few correspond that there is nothing to learn from them.
        """
        assert self.keys is not None
        known, order = keys.sort()
        place = torch.searchsorted(known, self.keys).clamp(max=len(known) - 1)
        both = known[place] == self.keys
        found = replace(
            self,
            positions=len(keys),
            rows=order[place[both]],
            stream=self.stream[both],
            keys=self.keys[both],
        )
        held = int(found.held.sum())
        return found if 0 < held < len(found.rows) else None

    @property
    def held(self) -> Tensor:
        """(n,) whether a row is of an image that is held out: the last ones."""
        return self.rows >= (1 - HELD_OUT) * self.positions


class Targets:
    """Where layers' results shall land.

    Args:
        ends: the layers that are solved though they write into no stream: for the full model's
            results.
        seed: of the positions that are looked at.
    """

    def __init__(self, ends: set[nn.Module], *, seed: int) -> None:
        self._ends = ends
        self._seed = seed
        self._targets: dict[nn.Module, Target] = {}

    def wants(self, call: Call) -> bool:
        """Whether a layer that is called so can be solved."""
        layer = call.layer
        is_dense = isinstance(layer, ElasticLinear) or layer.groups == 1
        return is_dense and (call.onto is not None or layer in self._ends)

    def of(self, call: Call) -> Target | None:
        """Where a call's result shall land; None if that is unknown, or of another size."""
        like = call.onto.like if call.onto is not None else None
        found = self._targets.get(like or call.layer)
        if found is None:
            return None
        keys = call.keys
        if keys is not None and found.keys is not None:
            return found.found_in(keys)
        return found if found.positions == call.positions else None

    def note(self, call: Call, result: Tensor, scale: Tensor) -> None:
        """Notes where the full model's stream is behind a layer, unless it is known.

        Args:
            call: of the full model.
            result: of the call.
            scale: (outputs,) by how much the stream moves with the result.
        """
        if call.layer in self._targets:
            return
        rows = self._sample(call)
        stream = call.at(result, rows) * scale
        skip = call.skip(rows)
        if skip is not None:
            stream += skip
        keys = call.keys
        known = None if keys is None else keys[rows]
        self._targets[call.layer] = Target(call.positions, rows, stream, known)

    def _sample(self, call: Call) -> Tensor:
        """Positions of a layer's result, rising."""
        count = max(LEAST_ROWS, ROWS_PER_INPUT * call.layer.weight[0].numel())
        if call.positions <= count:
            return torch.arange(call.positions, device=call.x.device)
        generator = torch.Generator().manual_seed(self._seed)
        rows = torch.randperm(call.positions, generator=generator)[:count]
        return rows.sort().values.to(call.x.device)
