"""mmdet's configs: by their names in mmdet, or files that a recipe says may be trusted."""

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from paretopath.errors import InvalidValueError, nearest
from search_spaces.detr.library import build, mmdet
from search_spaces.detr.operators import provide

TRANSFORMERS = ("DETR", "ConditionalDETR", "DABDETR", "DeformableDETR", "DINO")
TWO_STAGE = ("FasterRCNN", "MaskRCNN")


def read(config: str, arguments: Mapping[str, Any], *, trust: bool) -> dict[str, Any]:
    """The ``model`` section of a config, its weights left out: they come from the recipe.

    Args:
        config: a name of mmdet's, as ``dino-4scale_r50_8xb2-12e_coco``, or a file.
        arguments: override those of the section, key by key.
        trust: whether a file may be read: a config is Python, or may import some, and so runs.

    Raises:
        InvalidValueError: no such config; a file without trust; or nothing to search in it.
    """
    file = _file(config, trust=trust)
    from mmengine.config import Config

    try:
        whole = Config.fromfile(file)
    except Exception as error:  # whatever a config's code does
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise InvalidValueError(f"config {config!r} can't be read ({said})") from error
    if "model" not in whole:
        raise InvalidValueError(f"config must have a section model, but {config!r} has none")
    model = _merged(whole.model.to_dict(), arguments)
    _prepare(model, without_operators=provide())
    kind = model.get("type")
    known = (*TRANSFORMERS, *TWO_STAGE)
    if kind not in known:
        raise InvalidValueError(
            f"config must be of a detector that the space knows, but {config!r} is of {kind}; "
            f"{nearest(kind, known)}"
        )
    return model  # type: ignore[no-any-return]


def _file(config: str, *, trust: bool) -> Path:
    known = {
        file.stem: file for file in sorted(_folder().rglob("*.py")) if "_base_" not in file.parts
    }
    if config in known:
        return known[config]
    file = Path(config)
    if file.suffix not in (".py", ".yaml", ".yml", ".json"):
        raise InvalidValueError(
            f"config must be a name of mmdet's or a file, but got {config!r}; "
            f"{nearest(config, known)}"
        )
    if not file.is_file():
        raise InvalidValueError(f"config: there is no file {config}")
    if not trust:
        raise InvalidValueError(
            f"config {config!r} is a file, and reading it runs code that it holds: "
            f"set trust_config to true if you trust it, or name one of mmdet's"
        )
    return file


def _folder() -> Path:
    """Where mmdet keeps its configs."""
    return Path(mmdet().__file__ or "").parent / ".mim" / "configs"


def _merged(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """A mapping with another's values in place of its own, and those of mappings inside it."""
    made = dict(base)
    for name, value in over.items():
        below = made.get(name)
        if isinstance(value, Mapping) and isinstance(below, Mapping):
            value = _merged(below, value)
        made[name] = value
    return made


def _prepare(node: Any, *, without_operators: bool) -> None:
    """Takes away, in place, where a config would download weights from.

    Args:
        node: of a config.
        without_operators: whether RoIAlign must be torchvision's.
    """
    if isinstance(node, dict):
        if node.get("init_cfg") and "Pretrained" in str(node["init_cfg"]):
            node["init_cfg"] = None
        if node.get("pretrained"):
            node["pretrained"] = None
        if node.get("type") == "RoIAlign" and without_operators:
            node["use_torchvision"] = True
        for value in node.values():
            _prepare(value, without_operators=without_operators)
    elif isinstance(node, list | tuple):
        for value in node:
            _prepare(value, without_operators=without_operators)


def with_classes(model: dict[str, Any], num_classes: int | None) -> dict[str, Any]:
    """The same detector for another number of classes."""
    made = copy.deepcopy(model)
    if num_classes is not None:
        _set_classes(made, num_classes)
    return made


def _set_classes(node: Any, num_classes: int) -> None:
    if isinstance(node, dict):
        if "num_classes" in node:
            node["num_classes"] = num_classes
        for value in node.values():
            _set_classes(value, num_classes)
    elif isinstance(node, list | tuple):
        for value in node:
            _set_classes(value, num_classes)


def detector(model: dict[str, Any]) -> Any:
    """The detector of a ``model`` section, with new random weights, in evaluation mode.

    Raises:
        InvalidValueError: mmdet can't build it.
    """
    from mmengine.config import ConfigDict

    is_meta = torch.empty(0).is_meta  # inside ``with torch.device("meta")``
    try:
        # on the CPU in any case: mmdet reads numbers out of tensors
        with torch.device("cpu"), torch.random.fork_rng(devices=[], enabled=is_meta):
            made = build(ConfigDict(copy.deepcopy(model)))
        if is_meta:
            made.to("meta")
        else:
            made.init_weights()
    except Exception as error:  # whatever mmdet raises
        said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
        raise InvalidValueError(f"config must make a detector, but mmdet can't ({said})") from error
    made.eval()
    return made
