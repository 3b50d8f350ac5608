"""mmcv's compiled operators by torchvision's, where mmcv was installed without any.

Detectors need two of them: non-maximum suppression and RoIAlign. Deformable attention has a form in
plain PyTorch, which :mod:`search_spaces.detr.attention` takes on every device.
"""

import importlib.util
import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

from torch import Tensor
from torchvision.ops import nms, roi_align

_NAME = "mmcv._ext"


def provide() -> bool:
    """Puts torchvision's operators where mmcv looks for its own, unless it has its own.

    Must run before ``mmcv.ops`` is imported.

    Returns:
        Whether torchvision's are in place.
    """
    if _NAME not in sys.modules and importlib.util.find_spec(_NAME) is None:
        sys.modules[_NAME] = _Operators(_NAME)
    return isinstance(sys.modules.get(_NAME), _Operators)


class _Operators(ModuleType):
    """A module that holds every name that mmcv asks for; most of them raise when called."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing(*args: Any, **kwargs: Any) -> Any:
            raise RuntimeError(
                f"mmcv's operator {name} has no form in torchvision: install mmcv with its "
                "compiled operators"
            )

        return missing

    @staticmethod
    def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int = 0) -> Tensor:
        """Indices of the boxes (N, 4) that are kept, by falling score."""
        if offset:  # boxes whose far corner belongs to them are a pixel larger
            boxes = boxes + boxes.new_tensor([0, 0, offset, offset])
        kept: Tensor = nms(boxes, scores, iou_threshold)
        return kept

    @staticmethod
    def roi_align_forward(
        features: Tensor,
        rois: Tensor,
        output: Tensor,
        argmax_y: Tensor,
        argmax_x: Tensor,
        aligned_height: int,
        aligned_width: int,
        spatial_scale: float,
        sampling_ratio: int,
        pool_mode: int,
        aligned: bool,
    ) -> None:
        """Fills ``output`` (R, C, height, width); average pooling alone, without gradients."""
        size = (aligned_height, aligned_width)
        output.copy_(roi_align(features, rois, size, spatial_scale, sampling_ratio, aligned))
