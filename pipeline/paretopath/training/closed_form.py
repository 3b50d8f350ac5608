"""Exits in closed form: their linear classifiers solved by ridge regression on the frozen rest.

No epochs: one pass over the training images collects what reaches each classifier. The ridge is
chosen on a fifth of them, by which also the scale of the logits is set, since least squares knows
nothing of likelihoods.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from paretopath.elastic import ElasticModel, Step, Unit
from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath
from paretopath.policies.calibration import fit_temperature
from paretopath.progress import Progress, unheard

_RIDGES = tuple(10.0**power for power in range(-6, 2))  # shares of the mean variance
_HELD_OUT_EVERY = 5  # images


class _Moments:
    """What least squares needs of the inputs of one classifier.

    Args:
        classifier: whose inputs.
    """

    def __init__(self, classifier: nn.Linear) -> None:
        self.classifier = classifier
        size = classifier.in_features + 1
        self.gram = torch.zeros(size, size, dtype=torch.float64)
        self.cross = torch.zeros(size, classifier.out_features, dtype=torch.float64)
        self.held_out: list[tuple[Tensor, Tensor]] = []

    def add(self, inputs: Tensor, targets: Tensor) -> None:
        """Takes inputs (B, K) and labels (B,) of a batch, and holds each fifth out."""
        x = inputs.double().cpu()
        x = torch.cat([x, torch.ones(len(x), 1, dtype=torch.float64)], 1)
        is_held_out = torch.arange(len(x)) % _HELD_OUT_EVERY == 0
        self.held_out.append((x[is_held_out], targets[is_held_out]))
        self._count(x[~is_held_out], targets[~is_held_out])

    def solve(self) -> None:
        """Gives the classifier the solution for all images, with the ridge and the scale that are
        best on those held out.
        """
        x = torch.cat([inputs for inputs, _ in self.held_out])
        targets = torch.cat([labels for _, labels in self.held_out])
        tried = [self._solution(ridge) for ridge in _RIDGES]
        right = [int(((x @ weights).argmax(1) == targets).sum()) for weights in tried]
        best = max(range(len(_RIDGES)), key=lambda i: right[i])
        temperature = fit_temperature(x @ tried[best], targets)
        self._count(x, targets)
        weights = self._solution(_RIDGES[best]) / temperature
        with torch.no_grad():
            self.classifier.weight.copy_(weights[:-1].T)
            if self.classifier.bias is not None:
                self.classifier.bias.copy_(weights[-1])

    def _count(self, x: Tensor, targets: Tensor) -> None:
        self.gram += x.T @ x
        classes = self.classifier.out_features
        self.cross += x.T @ nn.functional.one_hot(targets, classes).double()

    def _solution(self, ridge: float) -> Tensor:
        """(K + 1, classes): weights, and the bias, which is not shrunk."""
        images = self.gram[-1, -1]
        means = self.gram[:-1, -1] / images
        variance = (self.gram.diagonal()[:-1] / images - means**2).mean()
        shrunk = self.gram.diagonal().clone().fill_(ridge * float(variance * images) + 1e-9)
        shrunk[-1] = 1e-9
        found: Tensor = torch.linalg.solve(self.gram + shrunk.diag(), self.cross)
        return found


@torch.inference_mode()
def solve_exits(
    model: ElasticModel,
    paths: Sequence[ExecutionPath],
    new: Collection[str],
    batches: Iterable[tuple[Any, Any]],
    *,
    progress: Progress = unheard,
    batches_in_all: int = 0,
) -> None:
    """Solves the classifiers of exits that are new in a model whose other weights are given.

    Args:
        model: changed in place; in evaluation mode.
        paths: canonical, one to each exit.
        new: names of the model's parameters that are new.
        batches: training images as in evaluation, and labels (B,), in random order.
        progress: told (batches done, all).
        batches_in_all: for the progress.

    Raises:
        InvalidValueError: something is new that is neither a norm's nor a linear classifier's of
            an exit, or what is right for an image is not one label.
    """
    ends = {path: model.steps(path) for path in paths}
    exits = {steps[-1].unit: steps for steps in ends.values() if steps[-1].unit.is_exit}
    keys = {unit: f"units.{key}." for key, unit in model.units.items()}
    moments = {}
    covered: set[str] = set()
    for unit in exits:
        mine = {name for name in new if name.startswith(keys[unit])}
        if mine:
            moments[unit] = _Moments(_classifier(unit, {n.removeprefix(keys[unit]) for n in mine}))
            covered |= mine
    other = sorted(set(new) - covered)
    if other:
        raise InvalidValueError(
            f"exits.fit closed_form solves classifiers of exits alone, but {other[0]} is new too; "
            f"legal: gradient"
        )
    device = next(model.parameters()).device
    for number, (images, targets) in enumerate(batches):
        progress(number, batches_in_all)
        if not isinstance(targets, Tensor) or targets.ndim != 1:
            raise InvalidValueError(
                "exits.fit closed_form needs one label an image; legal: gradient"
            )
        for unit, inputs in _inputs(moments, exits, images.to(device)):
            moments[unit].add(inputs, targets)
    progress(batches_in_all, batches_in_all)
    for found in moments.values():
        found.solve()


def _inputs(
    moments: dict[Unit, _Moments], exits: dict[Unit, tuple[Step, ...]], images: Tensor
) -> Iterator[tuple[Unit, Tensor]]:
    """What reaches each classifier for a batch; steps that paths share run once."""
    states: dict[tuple[Step, ...], Any] = {(): images}
    for unit in sorted(moments, key=lambda unit: len(exits[unit])):
        steps = exits[unit]
        start = max((k for k in states if steps[: len(k)] == k), key=len)
        state = states[start]
        for number in range(len(start), len(steps) - 1):
            state = steps[number](state)
        states[steps[:-1]] = state
        with _seen(moments[unit].classifier) as seen:
            steps[-1](state)
        yield unit, seen[-1]


@contextmanager
def _seen(classifier: nn.Linear) -> Iterator[list[Tensor]]:
    """The inputs that a layer gets inside the block."""
    inputs: list[Tensor] = []
    hook = classifier.register_forward_pre_hook(lambda module, args: inputs.append(args[0]))
    try:
        yield inputs
    finally:
        hook.remove()


def _classifier(unit: Unit, new: Collection[str]) -> nn.Linear:
    """The one linear layer of an exit that is new, beside norms."""
    layers = [
        (name, module)
        for name, module in unit.named_modules()
        if f"{name}.weight" in new and not isinstance(module, nn.LayerNorm | nn.RMSNorm)
    ]
    if len(layers) == 1 and isinstance(layers[0][1], nn.Linear):
        return layers[0][1]
    raise InvalidValueError(
        f"exits.fit closed_form solves exits that are a norm and a linear classifier, but "
        f"{unit.name} has {', '.join(name for name, _ in layers) or 'none'}; legal: gradient, or "
        f"an exit_head that is reuse or linear"
    )
