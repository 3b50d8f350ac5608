"""Image classifiers of transformers, from the folders that ``save_pretrained`` writes.

transformers is imported where such a folder is named.
"""

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from paretopath.elastic.proposal import Proposal
from paretopath.errors import InvalidValueError
from search_spaces.published import fitting_side

_CONFIG = "config.json"
_PREFIX = "model."
_INTERPOLATIONS = {0: "nearest", 2: "bilinear", 3: "bicubic"}
"""Pillow's numbers."""


class ImageClassifier(nn.Module):
    """A classifier of transformers that takes images and gives logits.

    Args:
        config: transformers' own.
    """

    def __init__(self, config: Any) -> None:
        from transformers import AutoModelForImageClassification

        super().__init__()
        self.model: Any = AutoModelForImageClassification.from_config(config)

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, Y, X) -> (B, classes)."""
        logits: Tensor = self.model(pixel_values=images).logits
        return logits

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, Y, X) of the images that it is made for; 3 x 224 x 224 where it does not say."""
        size = getattr(self.model.config, "image_size", 224)
        height, width = (size, size) if isinstance(size, int) else size
        return int(getattr(self.model.config, "num_channels", 3)), int(height), int(width)

    def convert(self, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """A state dict by this model's names, of one by those that transformers writes.

        What has another shape, a classifier for other classes, keeps it.
        """
        given = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items()}
        with _quiet():
            loaded, said = type(self.model).from_pretrained(
                None,
                config=self.model.config,
                state_dict=given,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
            )
        lacking = {*said["missing_keys"], *(name for name, *_ in said["mismatched_keys"])}
        known = {n: t for n, t in loaded.state_dict().items() if n not in lacking}
        known |= {name: given[name] for name in lacking if name in given}
        return {f"{_PREFIX}{name}": tensor for name, tensor in known.items()}


def is_pretrained_folder(name: str) -> bool:
    """Whether a model's name is that of a folder here.

    Raises:
        InvalidValueError: it is, but not one of transformers'.
    """
    folder = Path(name).expanduser()
    if not folder.is_dir():
        return False
    if not (folder / _CONFIG).is_file():
        raise InvalidValueError(
            f"model {name!r} is a folder, so it must be one that transformers' save_pretrained "
            f"wrote, but there is no {_CONFIG} in it"
        )
    return True


def from_folder(name: str, arguments: Mapping[str, Any]) -> ImageClassifier:
    """A classifier with random weights.

    Args:
        name: the folder.
        arguments: fields of its configuration.

    Raises:
        InvalidValueError: no image classifier, or no such field.
    """
    config = _config(name, arguments)
    from transformers import AutoModelForImageClassification

    # transformers' own answer lists every model that it knows
    if type(config) not in AutoModelForImageClassification._model_mapping:
        raise InvalidValueError(
            f"model {name!r} must be an image classifier, but transformers has none of type "
            f"{config.model_type!r}"
        )
    return ImageClassifier(config)


def of_folder(name: str, classes: int, size: int | None, pixels: int) -> Proposal:
    """What a recipe should say for such a folder; see ``ElasticSpace.propose``."""
    config = _config(name, {})
    folder = Path(name).expanduser().resolve()
    channels, published = int(getattr(config, "num_channels", 3)), _side(config, folder)
    is_fixed = hasattr(config, "image_size")
    side = size or (published if is_fixed else fitting_side(published, pixels))
    arguments: dict[str, Any] = {"num_labels": classes}
    if is_fixed and side != config.image_size:
        arguments["image_size"] = side
    shape = (channels, side, side)
    weights = folder / "model.safetensors"
    images = _of_processor(folder)
    return Proposal(
        {"model": str(folder), "arguments": arguments, "input_shape": list(shape)},
        shape,
        mean=tuple(images.get("image_mean", (0.5,))),
        std=tuple(images.get("image_std", (0.5,))),
        interpolation=_INTERPOLATIONS.get(images.get("resample", 2), "bilinear"),
        weights=str(weights) if weights.is_file() else None,
        is_known="image_mean" in images,
    )


def _config(name: str, arguments: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    try:
        with _quiet():
            config, unknown = AutoConfig.from_pretrained(
                Path(name).expanduser(), return_unused_kwargs=True, **arguments
            )
    except (OSError, ValueError, KeyError) as error:  # not JSON, or of a type that it lacks
        said = " ".join(str(error).split())[:150]
        raise InvalidValueError(f"the {_CONFIG} of model {name!r} can't be read: {said}") from error
    for argument in unknown:
        raise InvalidValueError(
            f"arguments.{argument} must be a field of {type(config).__name__}, which has none"
        )
    return config


def _side(config: Any, folder: Path) -> int:
    """The side of the images that the published weights were trained on."""
    size = getattr(config, "image_size", None)
    if size is None:
        given = _of_processor(folder).get("size", 224)
        sizes = given.values() if isinstance(given, Mapping) else (given,)
        size = next(iter(sizes), 224)
    return int(size if isinstance(size, int) else size[0])


def _of_processor(folder: Path) -> dict[str, Any]:
    """What the folder says of the images that its model takes; empty where it says nothing."""
    try:
        found = json.loads((folder / "preprocessor_config.json").read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keeps transformers' reports and bars off the screen: what differs is said by us."""
    from transformers.utils import logging as bars

    log = logging.getLogger("transformers")
    level, shown = log.level, bars.is_progress_bar_enabled()
    log.setLevel(logging.ERROR)
    bars.disable_progress_bar()
    try:
        yield
    finally:
        log.setLevel(level)
        if shown:
            bars.enable_progress_bar()
