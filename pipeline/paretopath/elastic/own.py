"""What belongs to one path alone, and how the layers of a unit come by it.

One set of weights serves all paths; a path may also have tensors of its own that stand in for some
of the model's: the statistics of its batch normalisations, the weights and biases of layers that
were re-solved for it, each under the name that the model's have in its state dict. A model hands
them to a unit through its :class:`~paretopath.elastic.Step`, and a layer asks :func:`own_of` for
its part, when it runs and when it is extracted. So nothing in the model changes, units know nothing
of it, and any number of paths may run at one time, in threads or in the branches of a prefix tree.
"""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn
from torch.utils.weak import WeakTensorKeyDictionary

from paretopath.errors import CheckpointError, InvalidValueError
from paretopath.paths import ExecutionPath
from paretopath.weights.files import read_state, write_state

Tensors = Mapping[str, Tensor | None]
"""By name; None where a layer shall do without, as PyTorch's own layers do."""

NAMES = ("running_mean", "running_var", "weight", "bias")
"""What layers ask for: batch normalisations for the first two, the others for the last two."""


@dataclass(frozen=True)
class PathTensors:
    """Tensors that stand in for a model's own on one path.

    Attributes:
        path: canonical.
        tensors: by their names in the model's state dict. Those of a batch normalisation are
            ``running_mean`` and (biased) ``running_var``, (C,) each; those of an elastic layer
            ``weight`` and ``bias``, as narrow as the layer is on the path. There may be none.
    """

    path: ExecutionPath
    tensors: Tensors

    def to(self, device: torch.device | str) -> "PathTensors":
        """The same on a device."""
        moved = {n: t if t is None else t.to(device) for n, t in self.tensors.items()}
        return PathTensors(self.path, moved)

    def save(self, file: Path | str) -> None:
        """Writes the tensors as safetensors; the path is not in it."""
        write_state(file, {n: t for n, t in self.tensors.items() if t is not None})

    @classmethod
    def load(cls, file: Path | str, path: ExecutionPath) -> Self:
        """Reads what :meth:`save` wrote for a path.

        Raises:
            CheckpointError: no such file, or it holds something else.
        """
        state = read_state(file)
        if not all(name.rpartition(".")[2] in NAMES for name in state):
            raise CheckpointError(
                f"{file} does not hold what a path has for itself: batch-normalisation statistics "
                "and re-solved weights"
            )
        return cls(path, state)


class OwnFolder:
    """What paths have for themselves on disk, a file each.

    Args:
        folder: made when the first are kept.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __getitem__(self, path: ExecutionPath) -> PathTensors | None:
        """What a path has for itself, or None if nothing is kept."""
        file = self.file(path)
        return PathTensors.load(file, path) if file.is_file() else None

    def keep(self, own: PathTensors) -> None:
        """Writes what a path has for itself."""
        self.folder.mkdir(parents=True, exist_ok=True)
        own.save(self.file(own.path))

    def file(self, path: ExecutionPath) -> Path:
        """Where a path's is kept."""
        return self.folder / f"{path.id}.safetensors"


class Own:
    """The part of a path's tensors that the layers of one unit take.

    Two are equal if they are to the last bit: paths share a step then.

    Args:
        tensors: by layer, then by the layer's name for them.
    """

    def __init__(self, tensors: Mapping[nn.Module, Tensors]) -> None:
        self.tensors = tensors

    @cached_property
    def _digest(self) -> bytes:
        digest = hashlib.sha256()
        for layer, tensors in self.tensors.items():
            for name, tensor in sorted(tensors.items()):
                digest.update(f"{id(layer)} {name} ".encode())
                if tensor is not None:
                    digest.update(_content(tensor))
        return digest.digest()

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Own) and (self is other or self._digest == other._digest)

    def __hash__(self) -> int:
        return hash(self._digest)


_contents: WeakTensorKeyDictionary = WeakTensorKeyDictionary()
"""Digests of tensors that live: paths hold the same ones, and are compared often."""


def _content(tensor: Tensor) -> bytes:
    """A digest of a tensor's data type, shape and values."""
    known: tuple[int, bytes] | None = _contents.get(tensor)
    version = 0 if tensor.is_inference() else tensor._version
    if known is not None and known[0] == version:
        return known[1]
    digest = hashlib.sha256(f"{tensor.dtype} {tuple(tensor.shape)} ".encode())
    plain = tensor.detach().cpu().contiguous().reshape(-1)
    digest.update(plain.view(torch.uint8).numpy().tobytes())
    _contents[tensor] = version, digest.digest()
    return digest.digest()


_current: ContextVar[Own | None] = ContextVar("the own tensors of the step that runs", default=None)


@contextmanager
def using(own: Own | None) -> Iterator[None]:
    """What layers have for themselves while they run, or are extracted, inside the block.

    It holds for this thread alone.
    """
    token = _current.set(own)
    try:
        yield
    finally:
        _current.reset(token)


def own_of(layer: nn.Module) -> Tensors:
    """What a layer has for itself on the path that runs; empty where it has what the model has."""
    own = _current.get()
    return own.tensors.get(layer, {}) if own is not None else {}


def own_by_unit(units: nn.ModuleDict, tensors: Tensors) -> dict[str, Own]:
    """A path's tensors, sorted by the units whose layers take them.

    Args:
        units: by key; a tensor's name is ``units.KEY.LAYER.NAME``.
        tensors: of the path; brought to the device and data type of what they stand in for.

    Raises:
        InvalidValueError: a tensor of a layer that the model has not.
    """
    found: dict[str, dict[nn.Module, dict[str, Tensor | None]]] = {}
    modules = {
        key: dict(units[key].named_modules())
        for key in {_unit_of(n) for n in tensors} & units.keys()
    }
    for full_name, tensor in sorted(tensors.items()):
        key = _unit_of(full_name)
        layer, _, name = full_name.removeprefix(f"units.{key}").rpartition(".")
        module = modules.get(key, {}).get(layer.removeprefix("."))
        stood_for = getattr(module, name, None)
        if module is None or not hasattr(module, name):
            raise InvalidValueError(
                f"a path has a {full_name!r} of its own, but its model has none"
            )
        if stood_for is None:  # a bias that the layer gains
            stood_for = getattr(module, "weight", None)
        if tensor is not None and isinstance(stood_for, Tensor):
            tensor = tensor.to(stood_for)
        found.setdefault(key, {}).setdefault(module, {})[name] = tensor
    return {key: Own(layers) for key, layers in found.items()}


def named(units: nn.ModuleDict, tensors: Mapping[nn.Module, Tensors]) -> dict[str, Tensor | None]:
    """What layers of units have for themselves, by the names that :func:`own_by_unit` takes."""
    names = {layer: name for name, layer in units.named_modules(prefix="units")}
    return {
        f"{names[layer]}.{name}": tensor
        for layer, of_layer in tensors.items()
        for name, tensor in of_layer.items()
    }


def together(parts: Iterable[Own | None]) -> Own:
    """What the layers of several units have for themselves."""
    return Own({layer: t for own in parts if own is not None for layer, t in own.tensors.items()})


def _unit_of(name: str) -> str:
    """The key of the unit in a tensor's name."""
    return name.split(".", 2)[1] if name.startswith("units.") else ""
