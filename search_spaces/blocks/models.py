"""Models by the names that people use: timm's, torchvision's, ``module:callable``, folders."""

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torchvision
from torch import Tensor, nn

from paretopath.elastic.options import tried
from paretopath.errors import InvalidValueError, nearest
from search_spaces.blocks.pretrained_folders import (
    ImageClassifier,
    from_folder,
    is_pretrained_folder,
)
from search_spaces.timm_alone import timm


class Original:
    """A model of another library, made anew each time.

    Args:
        name: of timm, of torchvision, ``module:callable`` that gives a module, or a folder of
            transformers'.
        arguments: for its constructor.

    Attributes:
        make: that constructor.

    Raises:
        InvalidValueError: no such model, or arguments with which it can't be made.
    """

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        self.name = name
        self.arguments = dict(arguments)
        for argument in ("pretrained", "weights", "checkpoint_path", "features_only"):
            if argument in arguments:
                raise InvalidValueError(
                    f"arguments.{argument} is not for the space: weights come from the recipe's "
                    f"weights, and the model gives its output"
                )
        self.make = _maker(name)

    def __call__(self) -> nn.Module:
        """The model with random weights (torch's global generator), in evaluation mode."""
        model = tried(lambda given: self.make(**given), self.arguments, field="arguments")
        if not isinstance(model, nn.Module):
            raise InvalidValueError(
                f"model must give a torch.nn.Module, but {self.name!r} gives a "
                f"{type(model).__name__}"
            )
        on_meta = torch.empty(0).is_meta  # inside ``with torch.device("meta")``
        model = model.to("meta") if on_meta else model
        model.eval()  # some give nothing back
        return model

    def convert(self, state: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
        """A published state dict as its own library would convert it for a model."""
        if isinstance(model, ImageClassifier):
            return model.convert(state)
        module = sys.modules[type(model).__module__]
        convert: Callable[..., Any] | None = getattr(module, "checkpoint_filter_fn", None)
        if convert is None or not module.__name__.startswith("timm."):
            return state
        converted: dict[str, Tensor] = convert(state, model)
        return converted


def _maker(name: str) -> Callable[..., Any]:
    if is_pretrained_folder(name):
        return lambda **arguments: from_folder(name, arguments)
    if ":" in name:
        return _callable(name)
    if is_of_timm(name):
        return lambda **arguments: _of_timm(name, arguments)
    if is_of_torchvision(name):
        return lambda **arguments: torchvision.models.get_model(name, weights=None, **arguments)
    known = [*timm.list_models(), *torchvision.models.list_models()]
    raise InvalidValueError(
        f"model must be one of timm's or torchvision's, module:callable, or a folder that "
        f"transformers wrote, but got {name!r}; "
        f"{nearest(name, known)}"
    )


def is_of_timm(name: str) -> bool:
    """Whether timm has a model of this name, whatever the tag of its weights."""
    return bool(timm.is_model(name))


def is_of_torchvision(name: str) -> bool:
    """Whether torchvision has a model of this name."""
    return name in torchvision.models.list_models()


def _callable(name: str) -> Callable[..., Any]:
    module, _, attribute = name.partition(":")
    try:
        found: Any = importlib.import_module(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ModuleNotFoundError as error:
        raise InvalidValueError(
            f"model {name!r} can't be imported: {error}; it must be installed, or its folder on "
            f"PYTHONPATH"
        ) from error
    except (ImportError, AttributeError) as error:
        raise InvalidValueError(f"model {name!r} can't be imported: {error}") from error
    if not callable(found):
        raise InvalidValueError(f"model {name!r} must be callable, but is a {type(found).__name__}")
    return found  # type: ignore[no-any-return]


def _of_timm(name: str, arguments: Mapping[str, Any]) -> nn.Module:
    model: nn.Module = timm.create_model(name, **arguments)
    return model


def input_shape(model: nn.Module, arguments: Mapping[str, Any]) -> tuple[int, int, int]:
    """(C, Y, X) of the images that a model is made for; 3 x 224 x 224 where nobody says."""
    if isinstance(model, ImageClassifier):
        return model.input_shape
    published = getattr(model, "pretrained_cfg", None) or {}
    channels, height, width = published.get("input_size", (3, 224, 224))
    size = arguments.get("img_size", (height, width))
    height, width = (size, size) if isinstance(size, int) else size
    return int(arguments.get("in_chans", channels)), int(height), int(width)
