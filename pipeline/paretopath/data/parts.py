"""Which images belong to each part of a data set: splits of the source, or carved out of train."""

import math
from collections.abc import Callable, Mapping, Sequence, Sized
from itertools import combinations
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np

from paretopath.data.saying import listed, say
from paretopath.data.splits import Indices, stratified
from paretopath.errors import DataError, nearest
from paretopath.quantities import counted
from paretopath.recipe import Data

# Shares of `train` that are carved out where neither the recipe nor the source has a split. More
# for test, because the figures that are reported rest on it.
DEFAULT_SHARES = {"test": 0.25, "validation": 0.15}

FEW = 50
"""Images on which an accuracy of one half has a standard error of 7 points."""

E = TypeVar("E", bound=Sized)


def choose_parts(
    config: Data, sources: Mapping[str, E], classes_of: Callable[[E], Indices]
) -> dict[str, tuple[E, Indices]]:
    """The images of train, validation and test.

    Parts that are carved out of ``train`` are stratified by class; test comes before validation, so
    that the test images don't depend on the share of validation.

    Args:
        config: the recipe's section.
        sources: the source's own splits.
        classes_of: (n,) the class of each example of a split, for stratification.

    Raises:
        DataError: there is no such split, or one gets no images.
    """
    train = own_split(config, sources, config.splits.train, "train")
    parts: dict[str, tuple[E, Indices]] = {}
    carved: dict[str, int] = {}
    owners = {config.splits.train: "train"}
    for name, default in DEFAULT_SHARES.items():
        wanted = getattr(config.splits, name)
        if wanted is None:
            wanted = name if name in sources else default
        if isinstance(wanted, str):
            examples = own_split(config, sources, wanted, name)
            _check_owner(wanted, name, owners.setdefault(wanted, name))
            parts[name] = (examples, np.arange(len(examples)))
        else:
            carved[name] = round(wanted * len(train))
    pieces = stratified(classes_of(train), list(carved.values()), seed=config.seed)
    for name, indices in zip([*carved, "train"], pieces, strict=True):
        parts[name] = (train, indices)
    if unused := [name for name in sources if name not in owners]:
        say(f"no part uses the source's {listed(unused)}: see data.splits")
    _say_shared(parts)
    for name, (_, indices) in parts.items():
        if len(indices) == 0:
            raise DataError(
                f"every split must have images, but {name} gets none of the {len(train)} "
                f"in {config.splits.train!r}: see data.splits"
            )
        if len(indices) < FEW:
            say(f"{_few(name, len(indices))}; see data.splits")
    return parts


def _check_owner(split: str, part: str, owner: str) -> None:
    """Says, or refuses, that a part has the images of another.

    Args:
        split: of the source.
        part: that shall have it.
        owner: the part that had it first.
    """
    if owner == "train":
        raise DataError(
            f"data.splits.{part} must have images of its own, but train learns from {split!r}; "
            f"legal: another split, or a share of train such as {DEFAULT_SHARES[part]}"
        )
    if owner != part:
        say(
            f"test and validation are both the split {split!r}: paths are chosen by the images on "
            f"which they are reported; see data.splits"
        )


@runtime_checkable
class Named(Protocol):
    """Examples whose images are files that a table names."""

    @property
    def files(self) -> Sequence[str]:
        """Of each example; empty where the table holds images themselves."""
        ...


def _say_shared(parts: Mapping[str, tuple[Sized, Indices]]) -> None:
    """Says which files are in several parts."""
    files: dict[str, set[str]] = {}
    for name, (examples, indices) in parts.items():
        named = examples.files if isinstance(examples, Named) else ()
        files[name] = {named[index] for index in indices} if named else set()
    for one, other in combinations(sorted(files), 2):
        if shared := files[one] & files[other]:
            say(
                f"{counted(len(shared), 'file')} of {one} {'are' if len(shared) > 1 else 'is'} in "
                f"{other} too, such as {min(shared)}: an image should be named once"
            )


def _few(name: str, images: int) -> str:
    count = f"{name} has {images} image{'s' if images > 1 else ''}"
    if name == "train":
        return f"{count}: few to learn from"
    error = 50 / math.sqrt(images)
    return f"{count}: an accuracy on so few has a standard error of up to {error:.0f} points"


def own_split(config: Data, sources: Mapping[str, E], wanted: str, field: str) -> E:
    """A split of the source by its name; DataError if it has none of that name."""
    if wanted not in sources:
        raise DataError(
            f"data.splits.{field} must be a split of the source, but got {wanted!r}; "
            f"{nearest(wanted, sources)}"
        )
    return sources[wanted]


def check_classes(
    classes: Mapping[str, Indices], names: tuple[str, ...], outputs: int | None = None
) -> None:
    """Says which classes a part lacks, and refuses what can't be learned.

    Args:
        classes: by part, ``train`` among them: (n,) the class of each image.
        names: of the classes.
        outputs: that the model has, one a class; as many as there are names if None.

    Raises:
        DataError: train has fewer images than there are classes.
    """
    everything = np.unique(np.concatenate(list(classes.values())))
    every_name = [*names, *map(str, range(len(names), outputs or 0))]
    never = [every_name[n] for n in np.setdiff1d(np.arange(len(every_name)), everything)]
    if never:
        say(
            f"no image is of class {listed(never)}, of the {len(every_name)} that the model tells "
            f"apart: is num_classes right, and are the weights for these classes?"
        )
    for name, rows in classes.items():
        if name == "train" and len(rows) < len(everything):
            raise DataError(
                f"train must have an image of every class to learn from, but it gets {len(rows)} "
                f"of {sum(map(len, classes.values()))} images and there are {len(everything)} "
                f"classes: see data.splits"
            )
        absent = [names[number] for number in np.setdiff1d(everything, rows)]
        if absent:
            say(f"{name} has no image of class {listed(absent)}")
