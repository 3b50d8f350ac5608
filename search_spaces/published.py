"""What timm says about a model: its images' size and normalisation, where its weights are."""

from collections.abc import Mapping
from typing import Any

from paretopath.elastic.proposal import Proposal
from paretopath.errors import InvalidValueError, nearest
from search_spaces.timm_alone import timm

_STEP = 32
"""Most models halve their images five times."""


def of_timm(model: str, classes: int, size: int | None, pixels: int) -> Proposal:
    """What a recipe should say for a model of timm's.

    Args:
        model: its name, with the tag of its weights or without.
        classes, size, pixels: see :meth:`~paretopath.elastic.ElasticSpace.propose`.

    Raises:
        InvalidValueError: timm has no such model, or no weights of that tag.
    """
    if not timm.is_model(model):
        raise InvalidValueError(
            f"timm has no model {model!r}; {nearest(model, timm.list_models())}"
        )
    architecture, _, tag = model.partition(".")
    tags = timm.list_pretrained(f"{architecture}.*")
    if tag and model not in tags:
        raise InvalidValueError(
            f"timm has no weights {tag!r} of {architecture}; {nearest(model, tags)}"
        )
    cfg = timm.get_pretrained_cfg(model)
    channels, height, _ = cfg.input_size if cfg else (3, 224, 224)
    is_fixed = cfg is not None and cfg.fixed_input_size
    side = size or (height if is_fixed else fitting_side(height, pixels))
    arguments: dict[str, Any] = {"num_classes": classes}
    if is_fixed and side != height:
        arguments["img_size"] = side
    shape = (channels, side, side)
    options = options_of_model(
        model, arguments, shape, is_default=side == height or "img_size" in arguments
    )
    if cfg is None:
        return Proposal(options, shape)
    resizing = cfg.interpolation if cfg.interpolation in ("nearest", "bilinear") else "bicubic"
    return Proposal(
        options,
        shape,
        mean=tuple(cfg.mean),
        std=tuple(cfg.std),
        crop=float(cfg.crop_pct) if side == height else 1.0,
        interpolation=resizing,
        published=cfg.hf_hub_id or cfg.url or None,
        is_known=True,
    )


def options_of_model(
    model: str, arguments: Mapping[str, Any], shape: tuple[int, int, int], *, is_default: bool
) -> dict[str, Any]:
    """Of a space that takes a model by name; ``input_shape`` only where it is not the default."""
    options: dict[str, Any] = {"model": model, "arguments": dict(arguments)}
    return options if is_default else options | {"input_shape": list(shape)}


def fitting_side(published: int, pixels: int) -> int:
    """The published side, or the next multiple of 32 that smaller images fill."""
    return min(published, max(_STEP, -(-pixels // _STEP) * _STEP))
