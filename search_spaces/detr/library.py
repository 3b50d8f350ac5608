"""mmdet, imported when it is needed, and what it says when it is not there."""

import logging
import warnings
from functools import cache
from types import ModuleType
from typing import Any

from paretopath.errors import MissingExtraError


@cache
def mmdet() -> ModuleType:
    """The library, its models registered and its operators in place.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            import mmcv  # noqa: F401  # before its operators, which live inside it

            from search_spaces.detr.operators import provide

            provide()
            import mmdet.models
            from mmengine.logging import MMLogger
            from mmengine.registry import init_default_scope

            init_default_scope("mmdet")
            # it tells of each parameter that gets random weights
            MMLogger.get_current_instance().setLevel(logging.ERROR)
    except ImportError as error:
        raise MissingExtraError(
            f"the space detr needs mmdet: pip install 'paretopath[detection]' ({error})"
        ) from error
    module: ModuleType = mmdet
    return module


def build(config: Any) -> Any:
    """The detector that a ``model`` section of mmdet's describes, with random weights."""
    mmdet()
    from mmdet.registry import MODELS

    return MODELS.build(config)
