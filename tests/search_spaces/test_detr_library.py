"""mmdet's operators without a compiler, and what is said where mmdet is not."""

import subprocess
import sys

import pytest
import torch
from torchvision.ops import nms, roi_align


def test_without_mmdet_one_sentence_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['mmcv'] = None\n"
        "from paretopath.errors import MissingExtraError\n"
        "from search_spaces.detr.library import mmdet\n"
        "try: mmdet()\n"
        "except MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "needs mmdet: pip install 'paretopath[detection]'" in done.stdout
    assert done.stdout.count("\n") == 1


def test_mmcvs_operators_are_torchvisions_where_none_are_compiled() -> None:
    pytest.importorskip("mmdet", reason="the extra detection is not installed")
    from search_spaces.detr.library import mmdet

    mmdet()
    from mmcv.ops import RoIAlign, batched_nms

    generator = torch.Generator().manual_seed(0)
    corners = 50 * torch.rand(40, 2, generator=generator)
    boxes = torch.cat([corners, corners + 20], dim=1)
    scores = torch.rand(40, generator=generator)
    one_class = torch.zeros(40, dtype=torch.long)
    _, kept = batched_nms(boxes, scores, one_class, {"type": "nms", "iou_threshold": 0.5})
    assert kept.tolist() == nms(boxes, scores, 0.5).tolist()
    features = torch.rand(1, 3, 20, 20, generator=generator)
    rois = torch.cat([torch.zeros(40, 1), boxes], dim=1)
    aligned = RoIAlign((7, 7), spatial_scale=0.25, sampling_ratio=2)(features, rois)
    expected = roi_align(features, rois, (7, 7), 0.25, 2, True)
    torch.testing.assert_close(aligned, expected)


def test_an_operator_that_is_not_there_says_which() -> None:
    pytest.importorskip("mmdet", reason="the extra detection is not installed")
    from search_spaces.detr.operators import provide

    if not provide():
        pytest.skip("mmcv's operators are compiled here")
    ext = sys.modules["mmcv._ext"]
    with pytest.raises(RuntimeError, match="mmcv's operator carafe_forward"):
        ext.carafe_forward()
