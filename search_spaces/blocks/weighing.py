"""Where a model's multiply-accumulates are, and by that its blocks.

A *layer* is a module without children that has weights. A *block* is a module of at least two
layers that is not itself made of blocks: a bottleneck, an MBConv, a transformer block. What is made
of blocks (the model, its stages, containers) holds them.
"""

from collections import Counter
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor, nn

CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)


class Weights:
    """How a model's work is spread over its modules.

    Args:
        model: in evaluation mode.
        images: (B, C, Y, X), an example; on the meta device too.

    Attributes:
        calls: how often each module ran, by name.
        output: what the model gave.
    """

    @torch.no_grad()
    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.modules = dict(model.named_modules())
        self.calls: Counter[str] = Counter()
        self._own: Counter[str] = Counter()
        handles = [
            module.register_forward_hook(self._hook(name)) for name, module in self.modules.items()
        ]
        try:
            self.output = model(images)
        finally:
            for handle in handles:
                handle.remove()
        self._macs: Counter[str] = Counter()
        self._layers: Counter[str] = Counter()
        for name, macs in self._own.items():
            for holder in _holders_of(name):
                self._macs[holder] += macs
                self._layers[holder] += 1

    def _hook(self, name: str) -> Any:
        def count(module: nn.Module, inputs: tuple[Any, ...], out: Any) -> None:
            self.calls[name] += 1
            weight = getattr(module, "weight", None)
            if isinstance(out, Tensor) and isinstance(weight, Tensor) and weight.ndim > 1:
                self._own[name] += out.numel() * weight[0].numel()

        return count

    def of(self, name: str) -> int:
        """The multiply-accumulates of all layers inside a module, for the example."""
        return self._macs[name]

    def is_block(self, name: str) -> bool:
        """Whether a module that is called as one has at least two layers."""
        return self._layers[name] > 1

    def classifiers(self) -> tuple[str, ...]:
        """The layers that ran last, as many as have one output a class: two where a model learned
        from a teacher too.
        """
        *_, last = self._own or ("",)
        if not isinstance(self.output, Tensor) or self.output.ndim < 2:
            return (last,)
        classes = self.output.shape[1]
        ends = takewhile(lambda n: len(self.modules[n].weight) == classes, reversed(self._own))  # type: ignore[arg-type]
        return tuple(ends) or (last,)

    def holders(self) -> set[str]:
        """The modules that hold blocks, and so are traced through; the model, named ``""``, too."""
        found = {""}

        def visit(name: str) -> None:
            for child, module in self.modules[name].named_children():
                full = f"{name}.{child}" if name else child
                if self._holds_blocks(full, module):
                    found.add(full)
                    visit(full)

        visit("")
        return found

    def _holds_blocks(self, name: str, module: nn.Module) -> bool:
        if type(module).forward in _PLAIN:
            return True
        children = [
            (f"{name}.{n}", m) for n, m in module.named_children() if self.of(f"{name}.{n}")
        ]
        alike = {type(m) for _, m in children}
        if len(children) > 1 and len(alike) == 1 and all(self.is_block(n) for n, _ in children):
            return True
        return 2 * self._in_containers(name, module) > self.of(name) > 0

    def _in_containers(self, name: str, module: nn.Module) -> int:
        """The multiply-accumulates in a module's containers of blocks and in what is made so."""
        total = 0
        for child, inner in module.named_children():
            full = f"{name}.{child}"
            if isinstance(inner, CONTAINERS):
                total += self._in_containers(full, inner)
            elif isinstance(module, CONTAINERS):
                total += self.of(full) if self.is_block(full) else 0
            elif self._holds_blocks(full, inner):
                total += self.of(full)
        return total


_PLAIN = (nn.Sequential.forward, nn.ModuleList.forward, nn.ModuleDict.forward)


def _holders_of(name: str) -> list[str]:
    """A module and all in which it lies."""
    parts = name.split(".")
    return ["", *(".".join(parts[: i + 1]) for i in range(len(parts)))] if name else [""]
