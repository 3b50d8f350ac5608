"""Weights re-solved in closed form for the inputs that a narrower layer keeps; no gradients.

Of all layers over the inputs S that are kept, least squares takes the one closest to the full layer
on calibration data, min E|W x + b - W' x_S - b'|^2. It puts the best linear estimate of x from x_S
in place of x:

    W' = W_S + W_D R,  b' = b + W_D (mu_D - R mu_S),  R = Sigma_DS Sigma_SS^-1

with the inputs' mean mu and covariance Sigma, and D the inputs that are dropped. R does not depend
on the weights, so it serves convolutions of any filter size (each tap is a linear layer of its
own), and training through it trains the shared weights. It is the weight update of the Optimal
Brain Surgeon (Hassibi & Stork, NIPS 1992) for a whole set of inputs at once, as in Optimal Brain
Compression (Frantar & Alistarh, NeurIPS 2022).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from paretopath.elastic.ridge import ridged

Operands = tuple[Tensor, Tensor | None]

RIDGE = 1e-4
"""Ridge of the normal equations, as a share of the inputs' mean variance."""


class _Entry(NamedTuple):
    stamp: Hashable
    sources: tuple[Tensor, ...]
    made: tuple[Tensor, ...]


class Derived:
    """Tensors computed from others and kept until one of these changes; the oldest go first.

    While gradients are recorded nothing is kept: the result then is part of a graph.

    Args:
        capacity: how many results to keep.
    """

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        # with the sources themselves: the id of one that was freed may come again
        self._kept: OrderedDict[Hashable, _Entry] = OrderedDict()

    def __deepcopy__(self, memo: dict[int, object]) -> "Derived":
        return Derived(self.capacity)

    def get(
        self, key: Hashable, sources: Sequence[Tensor], make: Callable[[], tuple[Tensor, ...]]
    ) -> tuple[Tensor, ...]:
        """``make()``, or what it gave for this key while the sources were as they are now."""
        recorded = torch.is_grad_enabled() and any(source.requires_grad for source in sources)
        if recorded or any(source.is_inference() for source in sources):  # these count no versions
            return make()
        stamp = tuple((id(source), source._version, source.device) for source in sources)
        found = self._kept.pop(key, None)  # and put back last; other threads may do the same
        if found is not None and found.stamp == stamp:
            self._kept[key] = found
            return found.made
        # kept beyond the caller's inference mode
        with torch.inference_mode(False), torch.no_grad():
            made = make()
        self._kept[key] = _Entry(stamp, tuple(sources), made)
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return made


class Compensation(nn.Module):
    """What a layer's inputs look like on calibration data, and the weights that follow.

    Args:
        mean: (K,) of the layer's inputs.
        covariance: (K, K) of the layer's inputs.
        segments: the channels of each part of the input, which is their concatenation; narrower
            inputs are a prefix of each.
        ridge: added to the variances, as a share of their mean.
    """

    mean: Tensor
    covariance: Tensor

    def __init__(
        self, mean: Tensor, covariance: Tensor, *, segments: Sequence[int], ridge: float = RIDGE
    ) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("covariance", covariance)
        self.segments = tuple(segments)
        self.ridge = ridge
        self._reconstructions = Derived()
        self._solutions = Derived()

    def solve(self, weight: Tensor, bias: Tensor | None, kept: tuple[int, ...]) -> Operands:
        """The re-solved weight (outputs, k, …) and bias (outputs,) of a layer.

        Args:
            weight: (outputs, K) of a linear layer or (outputs, K, FY, FX) of a convolution.
            bias: (outputs,) or None.
            kept: the channels of each segment that the input has; k together.
        """
        sources = [weight] if bias is None else [weight, bias]
        made = self._solutions.get(kept, sources, lambda: self._solve(weight, bias, kept))
        return made[0], made[1]

    def _solve(
        self, weight: Tensor, bias: Tensor | None, kept: tuple[int, ...]
    ) -> tuple[Tensor, Tensor]:
        r, offset = self.reconstruction(kept)
        is_kept = self._is_kept(kept)
        own, dropped = weight[:, is_kept], weight[:, ~is_kept]
        if weight.ndim == 2:
            solved, shift = own + dropped @ r, dropped @ offset
        else:  # a filter's taps sum up inside the image; at its padded rim the shift is too large
            solved = (own + torch.einsum("odyx,dk->okyx", dropped, r)).contiguous()
            shift = dropped.sum((2, 3)) @ offset
        return solved, shift if bias is None else bias + shift

    def reconstruction(self, kept: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """The best linear estimate of the inputs that are dropped from those kept.

        It is kept where gradients are recorded: training solves anew at each step.

        Args:
            kept: the channels of each segment that are kept; k together.

        Returns:
            R (K - k, k) and the offset (K - k,): x_D is about R x_S + offset.
        """
        if not torch.is_grad_enabled():
            return self._reconstruct(kept)
        made = self._reconstructions.get(
            kept, (self.mean, self.covariance), lambda: self._reconstruct(kept)
        )
        return made[0], made[1]

    def _reconstruct(self, kept: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        covariance, mean = self.covariance.double(), self.mean.double()
        is_kept = self._is_kept(kept)
        within = ridged(covariance[is_kept][:, is_kept], self.ridge, variance=covariance.diagonal())
        across = covariance[is_kept][:, ~is_kept]
        r = torch.cholesky_solve(across, torch.linalg.cholesky(within)).T
        offset = mean[~is_kept] - r @ mean[is_kept]
        return r.to(self.mean.dtype), offset.to(self.mean.dtype)

    def _is_kept(self, kept: tuple[int, ...]) -> Tensor:
        """(K,) whether each input is kept."""
        parts = [torch.arange(n) < k for n, k in zip(self.segments, kept, strict=True)]
        return torch.cat(parts).to(self.mean.device)


def compensate(layer: nn.Module, compensation: Compensation | None) -> None:
    """Gives an elastic layer what its narrower forms re-solve their weights from; None takes it."""
    layer.add_module("compensation", compensation)


def compensation_of(layer: nn.Module) -> Compensation | None:
    """What :func:`compensate` gave a layer."""
    found = layer._modules.get("compensation")
    return found if isinstance(found, Compensation) else None


def restore_compensations(model: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Makes room in a new model for the compensations that a state dict holds.

    Args:
        model: changed in place; its layers get compensations of the right shapes.
        state: of a calibrated model of the same structure; what doesn't fit is left to the loader.
    """
    layers = dict(model.named_modules())
    for name, covariance in state.items():
        layer = layers.get(name.removesuffix(".compensation.covariance"))
        if layer is not None:
            segments = getattr(layer, "segments", None) or (len(covariance),)
            moments = torch.empty(len(covariance)), torch.empty(covariance.shape)
            compensate(layer, Compensation(*moments, segments=segments))
