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
    """A part of a recipe: unknown fields, values of another type and numbers that are not finite are refused."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def _as_tuple(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _one_or_many(value: Any) -> Any:
    return value if isinstance(value, list | tuple) else (value,)


def is_url(text: str) -> bool:
    """Whether a value names something by a scheme (``https://``, ``hf://``, ``s3://``) rather than a local file."""
    return "://" in text


def local_path(text: str, folder: str | os.PathLike[str]) -> str:
    """A file name made absolute: relative ones start from ``folder``; ``~`` is the home; URLs stay as they are."""
    if is_url(text):
        return text
    return os.path.abspath(Path(folder) / Path(text).expanduser())


def _resolve_file(value: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    return value if folder is None else local_path(value, folder)


def _resolve_weights(value: str, info: ValidationInfo) -> str:
    folder = (info.context or {}).get("folder")
    if folder is None:
        return value
    is_file = value.startswith((".", "/", "~")) or value.endswith(WEIGHT_SUFFIXES)
    return local_path(value, folder) if is_file or (Path(folder) / value).exists() else value


# A file or folder, in a recipe relative to the recipe's own folder; a URL stays as it is.
LocalFile = Annotated[str, Field(min_length=1), AfterValidator(_resolve_file)]

# A file (it starts with ".", "/" or "~", ends like a file of weights, or exists beside the recipe) or a hub id.
Weights = Annotated[str, Field(min_length=1), AfterValidator(_resolve_weights)]

Number = Annotated[float, Strict()]
Share = Annotated[float, Strict(), Field(ge=0, le=1)]
Texts = Annotated[tuple[str, ...], BeforeValidator(_as_tuple)]
Pair = Annotated[tuple[Number, Number], BeforeValidator(_as_tuple)]
Numbers = Annotated[tuple[Number, ...], BeforeValidator(_one_or_many), BeforeValidator(_as_tuple)]
Size = Annotated[
    tuple[Annotated[int, Strict(), Field(ge=1)], ...],
    Field(min_length=1, max_length=2),
    BeforeValidator(_one_or_many),
    BeforeValidator(_as_tuple),
]
