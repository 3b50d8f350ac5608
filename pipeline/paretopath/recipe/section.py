"""What all sections of a recipe have in common, and the types that their fields share."""

import os
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    Strict,
    ValidationInfo,
)

# Suffixes by which a value that may also be a hub id is known to be a file of weights.
WEIGHT_SUFFIXES = (".safetensors", ".pt", ".pth", ".ckpt", ".bin")


class Section(BaseModel):
    """A part of a recipe: unknown fields, other types and numbers that are not finite are refused.

    Validation takes a context ``{"folder": …}`` from which relative file names start; without it
    they stay as they are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def is_url(text: str) -> bool:
    """Whether a value names something by a scheme (``https://``, ``hf://``), not a local file."""
    return "://" in text


def looks_local(text: str) -> bool:
    """Whether a value that may also be a hub id says by its start that it is a file or folder."""
    return text.startswith((".", "/", "~"))


def base_folder(info: ValidationInfo) -> Path | None:
    """The folder from which relative file names start in this validation; None to leave them."""
    folder: str | os.PathLike[str] | None = (info.context or {}).get("folder")
    return None if folder is None else Path(folder)


def local_path(text: str, folder: Path) -> str:
    """A file name made absolute from ``folder``; ``~`` is the home; URLs stay as they are."""
    if is_url(text):
        return text
    return os.path.abspath(folder / Path(text).expanduser())


def _resolve_file(value: str, info: ValidationInfo) -> str:
    folder = base_folder(info)
    return value if folder is None else local_path(value, folder)


def _resolve_weights(value: str, info: ValidationInfo) -> str:
    folder = base_folder(info)
    if folder is None:
        return value
    file = value.rpartition("#")[0] or value  # FILE#KEY
    is_file = looks_local(value) or file.endswith(WEIGHT_SUFFIXES) or (folder / file).exists()
    return local_path(value, folder) if is_file else value


def as_tuple(value: Any) -> Any:
    """YAML's lists as tuples; anything else as it is."""
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def _ascending(value: tuple[float, float]) -> tuple[float, float]:
    if not 0 < value[0] <= value[1]:
        raise ValueError("must be the least and the largest value, both over 0, in this order")
    return value


# A file or folder, in a recipe relative to the recipe's own folder; a URL stays as it is.
LocalFile = Annotated[str, Field(min_length=1), AfterValidator(_resolve_file)]

# A hub id, or a file: it starts with ".", "/" or "~", ends like one, or exists beside the recipe;
# FILE#KEY for what a file holds under a key.
Weights = Annotated[str, Field(min_length=1), AfterValidator(_resolve_weights)]

Number = Annotated[float, Strict()]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Texts = Annotated[tuple[str, ...], BeforeValidator(as_tuple)]

# A list that one value alone may stand for.
Numbers = Annotated[
    tuple[Number, ...],
    Field(min_length=1),
    BeforeValidator(as_tuple),
    BeforeValidator(_one_or_many),
]
Shares2 = Annotated[tuple[Share, Share], BeforeValidator(as_tuple)]
Range = Annotated[tuple[Number, Number], BeforeValidator(as_tuple), AfterValidator(_ascending)]
Size = Annotated[
    tuple[Annotated[int, Strict(), Field(ge=1)], ...],
    Field(min_length=1, max_length=2),
    BeforeValidator(as_tuple),
    BeforeValidator(_one_or_many),
]
