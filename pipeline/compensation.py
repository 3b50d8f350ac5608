"""Weights re-solved in closed form for the inputs that a narrower layer keeps; no gradients.

Of all layers over the inputs S that are kept, least squares takes the one closest to the full layer
on calibration data, min E|W x + b - W' x_S - b'|^2. It puts the best linear estimate of x from x_S
in place of x:

    W' = W R,  b' = b + W (mu - R mu_S),  R = Sigma_:S Sigma_SS^-1

with the inputs' mean mu and covariance Sigma. R does not depend on the weights, so it serves
convolutions of any filter size (each tap is a linear layer of its own), and training through it
trains the shared weights. It is the weight update of the Optimal Brain Surgeon (Hassibi & Stork,
NIPS 1992) for a whole set of inputs at once, as in Optimal Brain Compression (Frantar & Alistarh,
NeurIPS 2022).
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor, nn

Operands = tuple[Tensor, Tensor | None]

RIDGE = 1e-4
"""Ridge of the normal equations, as a share of the inputs' mean variance."""


def prefixes(kept: Sequence[int], segments: Sequence[int]) -> Tensor:
    """Indices of the first ``kept[i]`` channels of each segment of a concatenation, ascending."""
    starts = [sum(segments[:i]) for i in range(len(segments))]
    return torch.cat([torch.arange(a, a + k) for a, k in zip(starts, kept, strict=True)])


class Derived:
    """Tensors computed from others and kept until one of these changes; the oldest go first.

    While gradients are recorded nothing is kept: the result then is part of a graph.

    Args:
        capacity: how many results to keep.
    """

    def __init__(self, capacity: int = 64) -> None:
        self.capacity = capacity
        self._kept: OrderedDict[Hashable, tuple[Hashable, tuple[Tensor, ...]]] = OrderedDict()

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
        found = self._kept.get(key)
        if found is not None and found[0] == stamp:
            self._kept.move_to_end(key)
            return found[1]
        with (
            torch.inference_mode(False),
            torch.no_grad(),
        ):  # kept beyond the caller's inference mode
            made = make()
        self._kept[key] = (stamp, made)
        self._kept.move_to_end(key)
        while len(self._kept) > self.capacity:
            self._kept.popitem(last=False)
        return made


class Compensation(nn.Module):
    """What a layer's inputs look like on calibration data, and the weights that follow.

    Args:
        mean: (K,) of the layer's inputs.
        covariance: (K, K) of the layer's inputs.
        ridge: added to the variances, as a share of their mean.
    """

    mean: Tensor
    covariance: Tensor

    def __init__(self, mean: Tensor, covariance: Tensor, *, ridge: float = RIDGE) -> None:
        super().__init__()
        self.register_buffer("mean", mean)
        self.register_buffer("covariance", covariance)
        self.ridge = ridge
        self._reconstructions = Derived()
        self._solutions = Derived()

    def reconstruction(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        """The best linear estimate of all inputs from some.

        Args:
            kept: (k,) indices.

        Returns:
            R (K, k) and the offset (K,): x is about R x[kept] + offset. Exact for the kept ones.
        """
        key = tuple(kept.tolist())
        made = self._reconstructions.get(
            key, (self.mean, self.covariance), lambda: self._reconstruct(kept.to(self.mean.device))
        )
        return made[0], made[1]

    def _reconstruct(self, kept: Tensor) -> tuple[Tensor, Tensor]:
        covariance = self.covariance.double()
        ridge = self.ridge * covariance.diagonal().mean()
        dropped = torch.ones(len(covariance), dtype=torch.bool, device=kept.device)
        dropped[kept] = False
        within = covariance[kept][:, kept]
        within.diagonal().add_(ridge)
        r = torch.zeros(len(covariance), len(kept), dtype=torch.float64, device=kept.device)
        r[kept, torch.arange(len(kept), device=kept.device)] = 1.0
        r[dropped] = torch.cholesky_solve(
            covariance[kept][:, dropped], torch.linalg.cholesky(within)
        ).T
        mean = self.mean.double()
        offset = mean - r @ mean[kept]
        return r.to(self.mean.dtype), offset.to(self.mean.dtype)

    def solve(self, weight: Tensor, bias: Tensor | None, kept: Tensor) -> Operands:
        """The re-solved weight (outputs, k, …) and bias (outputs,) of a layer.

        Args:
            weight: (outputs, K) of a linear layer or (outputs, K, FY, FX) of a convolution.
            bias: (outputs,) or None.
            kept: (k,) indices of the inputs that are kept.
        """
        sources = (weight,) if bias is None else (weight, bias)
        made = self._solutions.get(
            tuple(kept.tolist()), sources, lambda: self._solve(weight, bias, kept)
        )
        return made[0], made[1]

    def _solve(self, weight: Tensor, bias: Tensor | None, kept: Tensor) -> tuple[Tensor, Tensor]:
        r, offset = self.reconstruction(kept)
        if weight.ndim == 2:
            shift = weight @ offset
            return weight @ r, shift if bias is None else bias + shift
        shift = (
            weight.sum((2, 3)) @ offset
        )  # inside the image; at its padded rim the offset is less
        solved = torch.einsum("okyx,ks->osyx", weight, r).contiguous()
        return solved, shift if bias is None else bias + shift
