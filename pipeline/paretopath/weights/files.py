"""Weights on disk: read without running anything from them, written whole or not at all."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from paretopath.errors import CheckpointError, nearest
from paretopath.files import write_atomically
from paretopath.weights.foreign import (
    differences,
    head_is_new,
    load_plain,
    refuse,
    renamed,
    split_key,
    state_within,
)
from paretopath.weights.known import known_checkpoints

TENSOR_SUFFIXES = (".safetensors",)
ELASTIC = "units."  # before every name of an elastic model's weights
CHECKSUM = "sha256"  # of the tensors, in the metadata of files that are written here


def read_state(file: Path | str, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file, or of a PyTorch file read with ``weights_only=True``.

    Args:
        file: see :mod:`~paretopath.weights.foreign` for where in it a state dict may be.
        key: where in a PyTorch file it is; found if None.

    Raises:
        CheckpointError: no such file, truncated, something other than tensors in it, or altered
            since it was written here.
    """
    file = Path(file)
    _require_readable(file)
    if file.suffix not in TENSOR_SUFFIXES:
        _check_description(file)
        return state_within(load_plain(file), file, key)
    if key is not None:
        raise CheckpointError(f"a {file.suffix} file holds one state dict: {file} has no {key!r}")
    written = read_metadata(file).get(CHECKSUM)
    if written is None:
        _check_description(file)
    try:
        state: dict[str, Tensor] = safetensors.torch.load_file(file)
    except Exception as error:  # truncated, or another format
        raise CheckpointError(f"{file} can't be read as weights: {error}") from error
    if written is not None:
        _check_tensors(file, state, written)
    return state


def read_metadata(file: Path | str) -> dict[str, str]:
    """What a ``.safetensors`` file says about itself, without its tensors.

    Raises:
        CheckpointError: it is no such file.
    """
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return dict(opened.metadata() or {})
    except Exception as error:  # truncated, or another format
        raise CheckpointError(f"{file} can't be read as weights: {error}") from error


def write_described(
    file: Path | str, state: Mapping[str, Tensor], about: Mapping[str, Any]
) -> None:
    """Writes tensors as :func:`write_state` does, and beside them a JSON file that describes them.

    Args:
        file: ``weights.safetensors``; the description is ``weights.safetensors.json``.
        state: the tensors.
        about: plain values: the path, the recipe, versions. The file's SHA-256 joins them, by which
            :func:`read_state` knows a file that was truncated or altered.
    """
    write_state(file, state)
    content = {"sha256": sha256(file), **about}
    write_atomically(_description(file), json.dumps(content, indent=1) + "\n")


def _description(file: Path | str) -> Path:
    return Path(f"{file}.json")


def _require_readable(file: Path) -> None:
    try:
        file.open("rb").close()
    except FileNotFoundError:
        raise CheckpointError(f"there is no weights file {file}") from None
    except OSError as error:
        reason = (error.strerror or "").lower()
        raise CheckpointError(f"weights file {file} can't be read: {reason}") from error


_whole: set[tuple[int, int, int, int]] = set()  # files that this process has checked


def _check_tensors(file: Path, state: Mapping[str, Tensor], written: str) -> None:
    """Refuses tensors that are not those that were written; each file is hashed once a process."""
    found = file.stat()
    identity = (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)
    if identity in _whole:
        return
    if _digest(state) != written:
        raise CheckpointError(
            f"{file} is refused: it was altered, the SHA-256 of its tensors is not the one that "
            f"was written with them"
        )
    _whole.add(identity)


def _digest(state: Mapping[str, Tensor]) -> str:
    """The SHA-256 of contiguous tensors on the CPU, with their names, types and shapes."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_description(file: Path) -> None:
    """Refuses a file that is not the one that its description, if it has one, describes."""
    try:
        expected = json.loads(_description(file).read_text())["sha256"]
    except FileNotFoundError:
        return
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{file} is refused: {_description(file).name} beside it can't be read"
        ) from error
    if sha256(file) != expected:
        raise CheckpointError(
            f"{file} is refused: it was truncated or altered, its SHA-256 is not the one in "
            f"{_description(file).name}"
        )


def write_state(
    file: Path | str, state: Mapping[str, Tensor], about: Mapping[str, str] | None = None
) -> None:
    """Writes tensors as safetensors, whole or not at all, with a checksum that readers verify.

    Args:
        file: its final name.
        state: the tensors.
        about: what else :func:`read_metadata` shall find.

    Raises:
        OSError: the disk does not take it; the weights of before, and what describes them, stay.
    """
    file = Path(file)
    tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
    content = safetensors.torch.save(tensors, {**(about or {}), CHECKSUM: _digest(tensors)})
    described, aside = _description(file), file.with_name(f".{file.name}.json.before")
    if described.is_file():  # it is of other weights: never beside the new ones
        described.replace(aside)
    try:
        write_atomically(file, content)
    except BaseException:
        if aside.is_file():
            aside.replace(described)
        raise
    aside.unlink(missing_ok=True)


def is_elastic(checkpoint: str) -> bool:
    """Whether a checkpoint is a file of weights that a run keeps, by an elastic model's names.

    Raises:
        CheckpointError: a file that can't be read.
    """
    file = Path(checkpoint)
    if file.suffix not in TENSOR_SUFFIXES or not file.is_file():
        return False
    try:
        with safetensors.safe_open(file, framework="pt") as opened:
            return all(name.startswith(ELASTIC) for name in opened.keys())
    except Exception as error:  # truncated, or another format
        raise CheckpointError(f"{file} can't be read as weights: {error}") from error


def load_into(model: nn.Module, file: Path | str) -> None:
    """Loads a file that :func:`write_state` wrote into a model of the same structure.

    The moments of a calibrated model come with it.

    Raises:
        CheckpointError: a name or a shape differs, naming the first one.
    """
    from paretopath.elastic.compensation import restore_compensations  # it reads files itself

    state = read_state(file)
    restore_compensations(model, state)
    _assign(model, state, str(file))


def load_reference(
    model: nn.Module,
    checkpoint: str,
    *,
    replaceable: Sequence[str] = (),
    heads: Sequence[str] = (),
    ignored: Sequence[str] = (),
    rename: Callable[[str], str] = str,
    adapt: Callable[[dict[str, Tensor]], dict[str, Tensor]] = dict,
) -> None:
    """Loads weights of the original library into its model.

    Args:
        model: changed in place.
        checkpoint: a local file, a folder of ``save_pretrained``, a name of
            ``checkpoints/known.yaml``, or a hub id such as
            ``timm/vit_base_patch16_224.augreg_in21k``; ``FILE#KEY`` for what a file holds under a
            key.
        replaceable: prefixes of entries that keep their new random weights where the shape differs:
            a classifier for another number of classes. They are marked as new (see
            :mod:`~paretopath.weights.new`), and :class:`~paretopath.errors.UntrainedClassifier`
            warns.
        heads: prefixes of which a checkpoint may lack all entries, as it may of those that are
            replaceable: a backbone's that has no head. They are new then.
        ignored: prefixes of entries that the checkpoint may hold and the model does not.
        rename: the model's name of an entry that the checkpoint holds.
        adapt: what makes a state dict, by the model's names, one of the model's shapes.

    Raises:
        CheckpointError: not found (locally, or the hub can't be reached), or it doesn't fit, or is
            quantised.
    """
    origin, key = split_key(checkpoint)
    state = adapt(renamed(read_state(_locate(origin), key), model.state_dict(), rename))
    state = {name: t for name, t in state.items() if not name.startswith(tuple(ignored))}
    _require_numbers(state, model.state_dict(), checkpoint)
    _assign(model, state, checkpoint, replaceable, (*heads, *replaceable))


def _locate(checkpoint: str) -> Path:
    """The local file of a checkpoint, downloaded if need be."""
    file = Path(checkpoint)
    if file.is_file():
        return file
    if file.is_dir():
        return _within(file)
    known = known_checkpoints()
    if checkpoint in known:
        return known[checkpoint].fetch()
    if file.suffix or checkpoint.count("/") != 1:
        raise CheckpointError(
            f"there is no weights file {checkpoint}, and it is neither a hub id (owner/name) "
            f"nor a known name; {nearest(checkpoint, known)}"
        )
    return _from_hub(checkpoint)


_SAVED = ("model.safetensors", "pytorch_model.bin")
"""What ``save_pretrained`` calls weights, here and on the hub."""


def _within(folder: Path) -> Path:
    """The weights of a folder that ``save_pretrained`` wrote."""
    for name in _SAVED:
        if (folder / name).is_file():
            return folder / name
    raise CheckpointError(
        f"weights {folder} is a folder, and has no {' or '.join(_SAVED)}: name a file in it"
    )


def _from_hub(name: str) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    try:
        try:
            return Path(hf_hub_download(name, _SAVED[0]))
        except EntryNotFoundError:
            return Path(hf_hub_download(name, _SAVED[1]))
    except Exception as error:  # network, authentication, missing repository
        raise CheckpointError(f"weights {name!r} can't be had from the hub: {error}") from error


def _assign(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    replaceable: Sequence[str] = (),
    heads: Sequence[str] = (),
) -> None:
    own = model.state_dict()
    counts = "num_batches_tracked"  # PyTorch's own count, which it fills in itself
    keep = {name: tensor for name, tensor in state.items() if not name.endswith(counts)}
    keep |= {name: state.get(name, t) for name, t in own.items() if name.endswith(counts)}
    missing, reshaped, unknown = differences(_shapes(keep), _shapes(own))
    lacking = [head for head in heads if not any(name.startswith(head) for name in state)]
    other = [name for name in reshaped if name.startswith(tuple(replaceable))]
    random = [*other, *(name for name in missing if name.startswith(tuple(lacking)))]
    refuse(
        source,
        [name for name in missing if name not in random],
        [
            f"{name!r} must have shape {tuple(own[name].shape)}, but got {tuple(keep[name].shape)}"
            for name in reshaped
            if name not in random
        ],
        unknown,
    )
    model.load_state_dict(keep | {name: own[name] for name in random})
    if random:
        known = len(keep[other[0]]) if other else 0
        classes = [len(own[name]) for name in random if name.startswith(tuple(replaceable))]
        head_is_new(model, source, random, known, classes[0])


def _require_numbers(state: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    for name, tensor in state.items():
        if name in own and own[name].is_floating_point() and not tensor.is_floating_point():
            raise CheckpointError(
                f"{source} must hold real numbers, but {name!r} is {tensor.dtype}: quantised "
                f"weights can't be searched"
            )


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in state.items()}


def sha256(file: Path | str) -> str:
    """The SHA-256 of a file, as hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(file).open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
