"""Checkpoints as the world saves them: state dicts inside others, names with prefixes.

Training scripts save more than weights. What is read of them is tensors and plain values; no code
runs.
"""

import argparse
import logging
import pathlib
import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product, zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from paretopath.errors import CheckpointError, UntrainedClassifier, nearest
from paretopath.weights.new import mark_new

# Where training scripts keep a state dict; averaged weights first, as timm prefers them.
KEYS = (
    *("state_dict_ema", "model_ema", "ema_state_dict", "ema_model", "ema"),
    *("state_dict", "model_state_dict", "model", "net", "teacher", "module"),
)

# What wrappers put before every name: DDP, torch.compile, Lightning modules, DINO and mmseg.
PREFIXES = ("module.", "_orig_mod.", "model.", "backbone.")

# What training scripts put beside weights, and what reading it can't run anything with.
_PLAIN_TYPES = (
    argparse.Namespace,
    pathlib.PosixPath,
    pathlib.PurePosixPath,
    np.dtype,
    np._core.multiarray.scalar,  # type: ignore[attr-defined]
    *(type(np.dtype(kind)) for kind in ("float64", "float32", "int64", "int32", "bool")),
)

_log = logging.getLogger(__name__)


def split_key(checkpoint: str) -> tuple[str, str | None]:
    """``file.pth#model_ema`` -> the file, and the key inside it; None where none is named."""
    origin, mark, key = checkpoint.rpartition("#")
    if not mark or Path(checkpoint).is_file():
        return checkpoint, None
    return origin, key


def load_plain(file: Path) -> Any:
    """The content of a PyTorch file that holds tensors and plain values.

    Raises:
        CheckpointError: it can't be read, or holds objects of other types.
    """
    try:
        with torch.serialization.safe_globals(list(_PLAIN_TYPES)):
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # each format raises its own kinds
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign:
            raise CheckpointError(
                f"{file} holds a {foreign[1]}, but only tensors and plain values are read, because "
                f"other objects can run code; save its state dict alone"
            ) from error
        said = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if "TorchScript" in said:
            said = "it holds a TorchScript program; save its state dict alone"
        elif "weights_only" in said:  # advice that would run what the file holds
            said = "it is no file that torch.save wrote"
        raise CheckpointError(f"{file} can't be read as weights: {said}") from error


def state_within(content: Any, source: Path | str, key: str | None = None) -> dict[str, Tensor]:
    """The state dict of a checkpoint: itself, or what it holds under one of :data:`KEYS`.

    Args:
        content: a mapping, from names to tensors or to other mappings.
        source: where it is from, for messages.
        key: where in it the state dict is; None takes the first of :data:`KEYS` that is there.

    Raises:
        CheckpointError: there is no state dict, or none under ``key``.
    """
    if key is not None:
        if not (isinstance(content, Mapping) and isinstance(content.get(key), Mapping)):
            found = [name for name, inner in _inner(content) if isinstance(inner, Mapping)]
            raise CheckpointError(f"{source} has no weights under {key!r}; {nearest(key, found)}")
        return state_within(content[key], f"{source}#{key}")
    if isinstance(content, Mapping) and content and _is_state(content):
        return dict(content)
    inner = dict(_inner(content))
    there = [name for name in KEYS if isinstance(inner.get(name), Mapping) and inner[name]]
    if not there:
        held = ", ".join(f"{name!r}" for name in list(inner)[:6]) or type(content).__name__
        raise CheckpointError(
            f"{source} holds something other than a state dict of tensors: {held}; FILE#KEY names "
            f"where its weights are, if they are under none of {', '.join(KEYS)}"
        )
    first, *others = there
    if others:
        _log.warning(
            "%s: of its weights, %s is taken; FILE#%s takes others", source, first, others[0]
        )
    return state_within(inner[first], source)


def renamed(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], rename: Callable[[str], str]
) -> dict[str, Tensor]:
    """A state dict by a model's own names, as far as taking prefixes away finds them.

    Args:
        state: what a checkpoint holds.
        own: of the model.
        rename: the model's name of an entry, once prefixes are off.
    """
    used = [prefix for prefix in PREFIXES if any(prefix in name for name in state)]
    used += [prefix for prefix in _commonest_prefix(state, own, rename) if prefix not in used]
    best, most = {rename(name): tensor for name, tensor in state.items()}, -1
    for depth in range(4):
        for prefixes in product(used, repeat=depth):
            candidate = {rename(_without(name, prefixes)): t for name, t in state.items()}
            known = sum(name in own for name in candidate)
            if known > most and len(candidate) == len(state):
                best, most = candidate, known
    return best


def _commonest_prefix(
    state: Mapping[str, Tensor], own: Mapping[str, Tensor], rename: Callable[[str], str]
) -> list[str]:
    """What stands before most of the names that end as a model's own: of a module's attribute."""
    found: Counter[str] = Counter()
    for name in state:
        parts = name.split(".")
        for start in range(1, len(parts)):
            if rename(".".join(parts[start:])) in own:
                found[".".join(parts[:start]) + "."] += 1
                break
    return [prefix for prefix, _ in found.most_common(1)]


def differences(
    state: Mapping[str, Sequence[int]], own: Mapping[str, Sequence[int]]
) -> tuple[list[str], list[str], list[str]]:
    """The names that a checkpoint lacks, that it has in another shape, that the model lacks.

    Args:
        state, own: shapes by name, of the checkpoint and of the model.
    """
    missing = [name for name in own if name not in state]
    reshaped = [name for name in own if name in state and tuple(state[name]) != tuple(own[name])]
    return missing, reshaped, [name for name in state if name not in own]


def refuse(
    source: str, missing: Sequence[str], reshaped: Sequence[str], unknown: Sequence[str]
) -> None:
    """CheckpointError where there are differences: the first three, one of each kind first.

    Args:
        source: where the weights are from.
        missing, unknown: names.
        reshaped: names with what is said of their shapes.
    """
    kinds = zip_longest(
        (f"it lacks {name!r}" for name in missing),
        reshaped,
        (f"it holds {name!r}, which the model lacks" for name in unknown),
    )
    found = [difference for row in kinds for difference in row if difference is not None]
    if found:
        more = f" (and {len(found) - 3} more)" if len(found) > 3 else ""
        raise CheckpointError(f"{source} does not fit the model: {'; '.join(found[:3])}{more}")


def head_is_new(
    model: nn.Module, source: str, names: Sequence[str], known: int, classes: int
) -> None:
    """Marks a model's head as new, since a checkpoint has another one or none, and warns of it.

    Args:
        model: with random weights under ``names``.
        source: where the other weights are from.
        names: of the head's entries that are new.
        known, classes: outputs of the checkpoint's classifier and of the model's; 0 known: it has
            none.
    """
    has = f"a classifier of {known} classes" if known else "no classifier"
    why = f"{has}, but the model's has {classes}"
    mark_new(model, why, names)
    message = f"{source} has {why}: it is as drawn at random until it is trained"
    warnings.warn(UntrainedClassifier(message), stacklevel=3)


def _is_state(content: Mapping[Any, Any]) -> bool:
    return all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    )


def _inner(content: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(content, Mapping):
        yield from ((str(name), value) for name, value in content.items())


def _without(name: str, prefixes: Sequence[str]) -> str:
    for prefix in prefixes:
        name = name.removeprefix(prefix)
    return name
