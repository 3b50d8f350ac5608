"""The ``data`` section: where images come from, how they are split, what is done to them."""

from pathlib import Path
from typing import Annotated, Any, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from paretopath.recipe.section import (
    Number,
    Numbers,
    Section,
    Texts,
    base_folder,
    local_path,
    looks_local,
)
from paretopath.recipe.transforms import TransformSpec

DIGITS = "digits"
DIGIT_SCENES = "digit_scenes"
BUILT_IN = (DIGITS, DIGIT_SCENES)
FROM_DISK = "load_from_disk"
COCO = "coco"
FOLDER_BUILDERS = ("imagefolder",)
FILE_BUILDERS = ("parquet", "csv", "json", "arrow", "webdataset")
LOCAL_SOURCES = (*BUILT_IN, *FOLDER_BUILDERS, *FILE_BUILDERS, FROM_DISK, COCO)


def _as_files(value: Any) -> Any:
    """One file or a list means the split ``train``, as it does for ``datasets.load_dataset``."""
    if isinstance(value, str | list):
        value = {"train": value}
    if isinstance(value, dict):
        return {
            split: (files,) if isinstance(files, str) else files for split, files in value.items()
        }
    return value


def _as_specs(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _check_part(value: Any) -> Any:
    is_share = isinstance(value, float) and 0 < value < 1
    if not (value is None or is_share or (isinstance(value, str) and value)):
        raise ValueError(
            "must be a split of the source or a share of its train split, over 0 and under 1"
        )
    return value


# The name of a split of the source, or a share of `train` to carve out.
Part = Annotated[str | float | None, BeforeValidator(_check_part)]
Transforms = Annotated[tuple[TransformSpec, ...], BeforeValidator(_as_specs)]
Files = Annotated[dict[str, Texts], BeforeValidator(_as_files)]


class Splits(Section):
    """Which images train the model, which choose paths and thresholds, which are reported."""

    train: str = Field(
        default="train", min_length=1, description="the source's split to learn from"
    )
    validation: Part = Field(
        default=None,
        description="a split, or a share of train; null: `validation` if it exists, else 0.15",
    )
    test: Part = Field(
        default=None,
        description="a split, or a share of train; null: `test` if it exists, else 0.25",
    )

    @model_validator(mode="after")
    def _leave_something_to_train_on(self) -> Self:
        shares = [part for part in (self.validation, self.test) if isinstance(part, float)]
        if sum(shares) >= 1:
            raise ValueError(
                f"validation and test must be shares that leave some of train, "
                f"but they add up to {sum(shares):g}"
            )
        return self


class TransformLists(Section):
    """What is done to an image before it is scaled to [0, 1] and normalised, in order."""

    train: Transforms | None = Field(
        default=None, description="for training; null: those of `evaluation`"
    )
    evaluation: Transforms | None = Field(
        default=None,
        description="for scoring, not random; null: resized in proportion and the centre cut out",
    )

    @field_validator("evaluation")
    @classmethod
    def _no_randomness(cls, value: tuple[Any, ...] | None) -> tuple[Any, ...] | None:
        for spec in value or ():
            if spec.name not in ("resize", "center_crop"):
                raise ValueError(
                    f"must be free of randomness (resize, center_crop), but holds {spec.name}"
                )
        return value


class Data(Section):
    """Images and their targets.

    With a local source, ``data_dir`` and ``data_files`` are relative to the recipe's folder.
    """

    source: str = Field(
        default=DIGITS,
        min_length=1,
        description="digits (scikit-learn's) or digit_scenes (made of them, with masks and boxes), "
        "always there; coco (its JSON and a folder of images); a builder of `datasets` "
        "(imagefolder, parquet, csv, …), load_from_disk, a hub id (owner/name), or a folder that "
        "starts with ./",
    )
    config: str | None = Field(default=None, description="the hub data set's configuration")
    revision: str | None = Field(
        default=None, description="the hub data set's commit, tag or branch"
    )
    data_dir: str | None = Field(
        default=None, description="folder of images, or of a data set saved to disk"
    )
    data_files: Files | None = Field(
        default=None, description="a file, a list, or files by split; globs and URLs too"
    )
    image: str = Field(default="image", min_length=1, description="the column of the images")
    target: str = Field(default="label", min_length=1, description="the column of what is right")
    max_value: Number | None = Field(
        default=None,
        gt=0,
        description="the value that means white; null: 255 for integers, 65535 for 16 bit, 1 else",
    )
    mean: Numbers = Field(
        default=(0.5,),
        description="subtracted after scaling to [0, 1]: one number, or one a channel, at most 1",
    )
    std: Numbers = Field(
        default=(0.5,),
        description="divided by after that, over 0 and at most 1: one number, or one a channel",
    )
    splits: Splits = Splits()
    transforms: TransformLists = TransformLists()
    batch_size: int = Field(default=64, ge=1, description="images a training step (a device)")
    eval_batch_size: int = Field(default=256, ge=1, description="images at once when scoring")
    workers: int = Field(
        default=2,
        ge=0,
        le=256,
        description="processes that decode; none are used for what is kept in memory",
    )
    cache_mb: Number = Field(
        default=1024.0,
        ge=0,
        description="MiB of decoded images kept in memory per split, if all of the split fits",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the splits that are carved out")

    @field_validator("mean", "std")
    @classmethod
    def _of_scaled(cls, value: tuple[float, ...], info: ValidationInfo) -> tuple[float, ...]:
        if info.field_name == "std" and min(value) <= 0:
            raise ValueError("must be over 0")
        if min(value) < 0 or max(value) > 1:
            raise ValueError(
                "must be from 0 to 1, as images are scaled to [0, 1] first; divide by 255 what is "
                "for images in [0, 255]"
            )
        return value

    @field_validator("source")
    @classmethod
    def _resolve_source(cls, value: str, info: ValidationInfo) -> str:
        folder = base_folder(info)
        return local_path(value, folder) if folder is not None and looks_local(value) else value

    @field_validator("data_dir")
    @classmethod
    def _resolve_dir(cls, value: str | None, info: ValidationInfo) -> str | None:
        folder = _folder_of_local_source(info)
        return value if value is None or folder is None else local_path(value, folder)

    @field_validator("data_files")
    @classmethod
    def _resolve_files(
        cls, value: dict[str, tuple[str, ...]] | None, info: ValidationInfo
    ) -> dict[str, tuple[str, ...]] | None:
        folder = _folder_of_local_source(info)
        if value is None or folder is None:
            return value
        return {
            split: tuple(local_path(file, folder) for file in files)
            for split, files in value.items()
        }

    @model_validator(mode="after")
    def _source_has_what_it_needs(self) -> Self:
        if self.source in BUILT_IN and (
            self.data_dir or self.data_files or self.config or self.revision
        ):
            raise ValueError(
                f"source {self.source} takes no data_dir, data_files, config or revision"
            )
        if self.source in (*FOLDER_BUILDERS, FROM_DISK) and not (self.data_dir or self.data_files):
            raise ValueError(f"source {self.source} needs data_dir, the folder that holds it")
        if self.source in (*FILE_BUILDERS, COCO) and not self.data_files:
            raise ValueError(f"source {self.source} needs data_files")
        return self


def _folder_of_local_source(info: ValidationInfo) -> Path | None:
    """Where file names start; None where they are names inside a data set of the hub."""
    return base_folder(info) if info.data.get("source") in LOCAL_SOURCES else None
