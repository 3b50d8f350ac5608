"""Small detectors of mmdet's, and its own answers for images of several sizes."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch.nn.utils.rnn import pad_sequence

from paretopath.elastic import ElasticModel
from paretopath.tasks.detection.objects import Detections, Objects, PaddedImages

SIZE = (64, 96)
WIDTH = 16


def backbone(outputs: tuple[int, ...], **more: Any) -> dict[str, Any]:
    """A ResNet-18 of two stages and 8 channels."""
    return {
        "depth": 18,
        "num_stages": 2,
        "strides": (1, 2),
        "dilations": (1, 1),
        "base_channels": 8,
        "stem_channels": 8,
        "out_indices": outputs,
        "frozen_stages": -1,
        "norm_cfg": {"type": "BN", "requires_grad": True},
        "norm_eval": False,
        "zero_init_residual": False,
        **more,
    }


def layers(attentions: tuple[str, ...], levels: dict[str, int], width: int) -> dict[str, Any]:
    """Two layers of a transformer."""
    attention = {"embed_dims": width, "num_heads": 4, "dropout": 0.0}
    of_each = {f"{name}_cfg": {**attention, **levels} for name in attentions}
    if "cross_attn" in attentions:
        of_each["self_attn_cfg"] = attention
    ffn = {"embed_dims": width, "feedforward_channels": 32, "ffn_drop": 0.0}
    return {"num_layers": 2, "layer_cfg": {**of_each, "ffn_cfg": ffn}}


def _options(config: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {
        "config": config,
        "image_size": SIZE,
        "num_classes": 5,
        "arguments": {"num_queries": 20, "test_cfg": {"max_per_img": 20}, **arguments},
        "divisor": 2,
        "keep_ratios": (0.5, 1.0),
        "ffn_ratios": (0.25, 1.0),
        "point_ratios": (0.25, 1.0),
        "query_ratios": (0.25, 1.0),
    }


def deformable(config: str) -> dict[str, Any]:
    """Options of a Deformable DETR or a DINO with three levels."""
    levels = {"num_levels": 3}
    neck = {
        "in_channels": [8, 16],
        "out_channels": WIDTH,
        "norm_cfg": {"type": "GN", "num_groups": 4},
        "num_outs": 3,
    }
    return _options(
        config,
        {
            "num_feature_levels": 3,
            "backbone": backbone((0, 1)),
            "neck": neck,
            "encoder": layers(("self_attn",), levels, WIDTH),
            "decoder": layers(("self_attn", "cross_attn"), levels, WIDTH),
            "positional_encoding": {"num_feats": WIDTH // 2},
            "bbox_head": {"embed_dims": WIDTH},
        },
    )


def detr() -> dict[str, Any]:
    """Options of a DETR."""
    return _options(
        "detr_r50_8xb2-150e_coco",
        {
            "backbone": backbone((1,)),
            "neck": {"in_channels": [16], "out_channels": WIDTH},
            "encoder": layers(("self_attn",), {}, WIDTH),
            "decoder": layers(("self_attn", "cross_attn"), {}, WIDTH),
            "positional_encoding": {"num_feats": WIDTH // 2},
            "bbox_head": {"embed_dims": WIDTH},
        },
    )


def conditional(config: str) -> dict[str, Any]:
    """Options of a Conditional DETR or a DAB-DETR: mmdet's work at a width of 256 alone."""
    few = {"layer_cfg": {"ffn_cfg": {"feedforward_channels": 32}}}
    return _options(
        config,
        {
            "backbone": backbone((1,)),
            "neck": {"in_channels": [16]},
            "encoder": {"num_layers": 1, **few},
            "decoder": {"num_layers": 2, **few},
        },
    )


def two_stage(config: str, swin: bool) -> dict[str, Any]:
    """Options of a Faster or Mask R-CNN over a ResNet or a Swin transformer."""
    channels = [8, 16]
    levels = len(channels)
    inner: dict[str, Any] = backbone((0, 1))
    if swin:
        inner = {
            "embed_dims": 8,
            "depths": (2, 2),
            "num_heads": (2, 2),
            "strides": (4, 2),
            "window_size": 4,
            "out_indices": (0, 1),
            "drop_path_rate": 0.0,
        }
    strides = [4, 8, 16, 32][: levels + 1]
    anchors = {"scales": [4], "strides": strides}
    extractor = {"out_channels": 8, "featmap_strides": strides[:levels]}
    head = {"in_channels": 8, "fc_out_channels": 16}
    roi: dict[str, Any] = {"bbox_roi_extractor": extractor, "bbox_head": head}
    if "mask" in config:
        masks = {"num_convs": 1, "in_channels": 8, "conv_out_channels": 8}
        roi |= {"mask_roi_extractor": extractor, "mask_head": masks}
    regions = {"max_per_img": 30, "nms_pre": 40, "nms": {"type": "nms", "iou_threshold": 0.7}}
    options = _options(
        config,
        {
            "backbone": inner,
            "neck": {"in_channels": channels, "out_channels": 8, "num_outs": levels + 1},
            "rpn_head": {"in_channels": 8, "feat_channels": 8, "anchor_generator": anchors},
            "roi_head": roi,
            "test_cfg": {"rpn": regions},
            "train_cfg": {"rpn_proposal": regions},
        },
    )
    del options["arguments"]["num_queries"]
    return options


def padded_images(seed: int = 0) -> PaddedImages:
    """Two images of other sizes than their batch."""
    sizes = torch.tensor([[64, 80], [50, 96]])
    pixels = torch.randn(2, 3, *SIZE, generator=torch.Generator().manual_seed(seed))
    images = PaddedImages(pixels, sizes)
    return PaddedImages(pixels.masked_fill(images.padding[:, None], 0.0), sizes)


def targets() -> Objects:
    """Three objects in the first image of two, one of them a crowd; none in the second."""
    boxes = torch.zeros(2, 3, 4)
    boxes[0] = torch.tensor([[5.0, 5, 30, 40], [40, 10, 70, 30], [0, 0, 80, 64]])
    labels = torch.tensor([[1, 4, 2], [-1, -1, -1]])
    crowd = torch.tensor([[False, False, True], [False] * 3])
    ones = torch.ones(2, 2)
    return Objects(boxes, labels, crowd, torch.ones(2, 3), ones, padded_images().sizes)


def mmdets(model: Any) -> Callable[[Any], Detections]:
    """mmdet's own predictions, with its own post-processing."""
    from mmdet.structures import DetDataSample

    def predict(images: Any) -> Detections:
        batch = PaddedImages.of(images)
        shape = tuple(batch.pixels.shape[-2:])
        samples = [
            DetDataSample(
                metainfo={
                    "img_shape": tuple(size),
                    "ori_shape": tuple(size),
                    "batch_input_shape": shape,
                    "pad_shape": shape,
                    "scale_factor": (1.0, 1.0),
                }
            )
            for size in batch.sizes.tolist()
        ]
        found = [s.pred_instances for s in model.predict(batch.pixels, samples, rescale=False)]
        return Detections(
            pad_sequence([each.bboxes for each in found], batch_first=True),
            pad_sequence([each.scores for each in found], batch_first=True),
            pad_sequence([each.labels for each in found], batch_first=True, padding_value=-1),
        )

    return predict


def original(space: Any, seed: int = 0) -> tuple[Any, ElasticModel]:
    """mmdet's detector with random weights, and the elastic model that has the same."""
    torch.manual_seed(seed)
    detector = space.reference()
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return detector, space.around(space.units_of(copy.deepcopy(detector))).eval()
