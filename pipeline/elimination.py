"""The order in which channels are worth keeping, when the weights of those left are re-solved.

Backward elimination by the criterion of the Optimal Brain Surgeon (Hassibi & Stork, NIPS 1992): the
channel q to go next is the one whose loss, once all weights left are re-solved for it, raises the
squared error of the layer's outputs least,

    L_q = |w_q|^2 / [Sigma_SS^-1]_qq,

with w_q the (re-solved) weights that read it and Sigma_SS the covariance of the inputs S that are
left. For inputs that go together, such as those of an attention head, tr(P_qq^-1 W_q^T W_q) with
the block P_qq of Sigma_SS^-1. A channel that several layers read adds up its losses in all of them,
each as a share of the variance of that layer's outputs.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor


class Problem:
    """One layer whose inputs are eliminated.

    Args:
        weight: (outputs, K) or (outputs, K, FY, FX); a filter's taps count as outputs.
        covariance: (K, K) of the inputs.
        ridge: added to the variances, as a share of their mean.
    """

    def __init__(self, weight: Tensor, covariance: Tensor, ridge: float) -> None:
        w = weight.double().cpu().movedim(1, -1).reshape(-1, weight.shape[1])  # (outputs, K)
        covariance = covariance.double().clone()
        covariance.diagonal().add_(ridge * covariance.diagonal().mean())
        self.gram = w.T @ w  # W^T W of the re-solved weights
        self.precision = torch.linalg.inv(covariance)
        variance = (covariance * self.gram).sum()
        self.scale = 1.0 / max(float(variance), torch.finfo(torch.float64).tiny)

    def losses(self, blocks: Tensor) -> Tensor:
        """(n,) error that dropping each block of inputs (n, width) adds, as a share of variance."""
        if blocks.shape[1] == 1:
            q = blocks[:, 0]
            alone: Tensor = self.scale * self.gram[q, q] / self.precision[q, q]
            return alone
        rows, columns = blocks[:, :, None], blocks[:, None, :]
        solved = torch.linalg.solve(self.precision[rows, columns], self.gram[rows, columns])
        together: Tensor = self.scale * solved.diagonal(dim1=1, dim2=2).sum(1)
        return together

    def drop(self, block: Tensor) -> None:
        """Takes inputs (width,) away and re-solves the others' weights."""
        p = self.precision[block]  # (width, K)
        m = torch.linalg.solve(p[:, block], p)
        self.precision.addmm_(p.T, m, alpha=-1.0)
        g = self.gram[block]  # (width, K)
        self.gram.addmm_(g.T, m, alpha=-1.0)
        self.gram.addmm_(m.T, g - g[:, block] @ m, alpha=-1.0)


def eliminate(
    problems: Mapping[str, Problem], groups: Sequence[Mapping[str, Tensor]]
) -> list[Tensor]:
    """Eliminates all channels but the last of each group, the cheapest of all groups first.

    Args:
        problems: by the reading layer's name; used up.
        groups: for each group of channels, and each layer that reads it, the layer's columns of
            each channel: (entries, width).

    Returns:
        For each group the (entries,) channels by falling worth: the one eliminated last comes
        first.
    """
    left = [list(range(len(next(iter(group.values()))))) for group in groups]
    gone: list[list[int]] = [[] for _ in groups]
    while any(len(entries) > 1 for entries in left):
        best: tuple[float, int, int] | None = None
        for i, group in enumerate(groups):
            if len(left[i]) > 1:
                chosen = torch.tensor(left[i])
                losses = sum(
                    (problems[name].losses(blocks[chosen]) for name, blocks in group.items()),
                    start=torch.zeros(len(chosen), dtype=torch.float64),
                )
                place = int(losses.argmin())
                if best is None or float(losses[place]) < best[0]:
                    best = (float(losses[place]), i, place)
        assert best is not None
        _, i, place = best
        entry = left[i].pop(place)
        gone[i].append(entry)
        for name, blocks in groups[i].items():
            problems[name].drop(blocks[entry])
    return [torch.tensor(kept + dropped[::-1]) for kept, dropped in zip(left, gone, strict=True)]
