"""UPerNet on a Swin backbone: blocks skipped, MLPs and attention narrowed, the decoder narrowed.

Xiao et al., "Unified Perceptual Parsing for Scene Understanding" (ECCV 2018, arXiv 1807.10221); Liu
et al., "Swin Transformer" (ICCV 2021, arXiv 2103.14030); the model is transformers'
``UperNetForSemanticSegmentation``. The state is the tuple of feature maps so far, (B, C, Y, X), and
last the map that is being worked on, (B, Y, X, C).
"""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import SwinConfig, UperNetConfig, UperNetForSemanticSegmentation

from paretopath.elastic import ElasticModel, Unit
from paretopath.elastic.options import (
    Count,
    Names,
    Pixels,
    Shares,
    checked,
    checked_arguments,
    tried,
)
from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import Condition, Decision
from search_spaces.pretrained import BASE_FIELDS, PretrainedSpace, plain_state
from search_spaces.upernet_decoder import Decoder
from search_spaces.upernet_encoder import Block, Output, Stem
from search_spaces.widths import (
    decoder_forms,
    fractions,
    head_counts,
    multiple_of_heads,
    skippable_blocks,
)

# Embedding width, depths and heads of the paper's Swin-T, S and B, and the window of the published
# UPerNets over them.
_VARIANTS: Mapping[str, tuple[int, tuple[int, ...], tuple[int, ...], int]] = {
    "t": (96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "s": (96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "b": (128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
}


class UpernetSwinSpace(PretrainedSpace):
    """The paths of a UPerNet with a Swin backbone, without the auxiliary head that only trains it.

    Decisions, for stage S and block B:

    - ``stages.S.blocks.B.run``: whether the block runs; a bypassed one is the identity;
    - ``stages.S.blocks.B.heads``: attention heads kept;
    - ``stages.S.blocks.B.mlp_ratio``: share of the MLP's hidden channels kept;
    - ``decoder.form``: ``as_published``, or ``upsampled_late``: the same function with the FPN
      bottleneck's products at each level's own size;
    - ``decoder.pool_width``: share of each pyramid pooling branch's channels;
    - ``decoder.lateral_width``: share of the channels that lateral maps and the pyramid's output
      have: they are summed up on the way down;
    - ``decoder.fpn.I.width``: share of the channels that level I brings to the FPN bottleneck;
    - ``decoder.width``: share of the FPN bottleneck's output channels.

    Args:
        variant: ``t``, ``s`` or ``b``; None to construct from ``arguments`` alone.
        arguments: fields of transformers' ``UperNetConfig`` (``hidden_size``, ``pool_scales`` …).
        backbone: fields of its ``SwinConfig`` (``embed_dim``, ``depths``, ``window_size`` …). Both
            override the variant's.
        image_size: height and width in pixels, or one number for both.
        num_classes: of the segmentation.
        skippable: which blocks a path may skip: ``all``, ``none``, or names such as
            ``stages.2.blocks.1``.
        head_ratios: shares, in (0, 1], of the attention heads that a block may keep; rounded up.
        mlp_ratios: shares, in (0, 1], of the hidden channels that an MLP may keep.
        divisor: channels that are kept are a multiple of it, where there are enough.
        width_ratios: values, in (0, 1], of the decoder's widths.
        forms: values of ``decoder.form``; ``as_published`` must be among them.

    Raises:
        InvalidValueError: an option outside its range.
    """

    original = UperNetForSemanticSegmentation
    replaceable = ("decode_head.classifier.",)
    heads = ("decode_head.",)
    ignored = ("auxiliary_head.", "backbone.swin.layernorm.")

    @checked
    def __init__(
        self,
        *,
        variant: str | None = "t",
        arguments: Mapping[str, Any] | None = None,
        backbone: Mapping[str, Any] | None = None,
        image_size: Pixels = 512,
        num_classes: Count = 150,
        skippable: Names | str = "all",
        head_ratios: Shares = (0.5, 1.0),
        mlp_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        width_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        divisor: Count = 8,
        forms: Names = ("upsampled_late", "as_published"),
    ) -> None:
        self.config = _config(variant, arguments or {}, backbone or {}, num_classes)
        self.mlp_ratios = fractions("mlp_ratios", mlp_ratios)
        self.head_ratios = fractions("head_ratios", head_ratios)
        self.width_ratios = fractions("width_ratios", width_ratios)
        self.divisor = divisor
        self.forms = decoder_forms(forms, ("upsampled_late", "as_published"))
        swin = self.config.backbone_config
        self.blocks = [
            f"stages.{s}.blocks.{b}" for s, depth in enumerate(swin.depths) for b in range(depth)
        ]
        self.skippable = skippable_blocks(skippable, self.blocks)
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size
        if height % swin.patch_size or width % swin.patch_size:
            raise InvalidValueError(
                f"image_size must be a multiple of the patch size {swin.patch_size}, "
                f"but got {(height, width)}"
            )
        super().__init__(
            [*self._encoder_decisions(), *self._decoder_decisions()],
            input_shape=(int(swin.num_channels), int(height), int(width)),
        )
        self.num_classes = num_classes

    def _runs(self, block: str) -> Condition | None:
        return Condition(f"{block}.run", (True,)) if block in self.skippable else None

    def _encoder_decisions(self) -> list[Decision]:
        decisions = []
        for block in self.blocks:
            stage = int(block.split(".")[1])
            if block in self.skippable:
                decisions.append(Decision(f"{block}.run", (False, True)))
            heads = head_counts(self.config.backbone_config.num_heads[stage], self.head_ratios)
            if len(heads) > 1:
                decisions.append(Decision(f"{block}.heads", heads, self._runs(block)))
            decisions.append(Decision(f"{block}.mlp_ratio", self.mlp_ratios, self._runs(block)))
        return decisions

    def _decoder_decisions(self) -> list[Decision]:
        levels = len(self.config.backbone_config.depths) - 1
        names = ["pool_width", "lateral_width", *(f"fpn.{i}.width" for i in range(levels)), "width"]
        widths = [Decision(f"decoder.{name}", self.width_ratios) for name in names]
        forms = [Decision("decoder.form", self.forms)] if len(self.forms) > 1 else []
        return [*forms, *widths]

    def reference(self) -> UperNetForSemanticSegmentation:
        """The original model with new random weights, in evaluation mode.

        Without the norm that transformers makes after the backbone's last stage for classifiers: no
        feature map passes through it, and published checkpoints lack it.
        """
        model = UperNetForSemanticSegmentation(copy.deepcopy(self.config)).eval()
        model.backbone.swin.layernorm = nn.Identity()
        return model

    def units_of(self, model: nn.Module) -> list[Unit]:
        """The chain of units around the modules of an original model."""
        assert isinstance(model, UperNetForSemanticSegmentation)
        swin, norms = model.backbone.swin, model.backbone.hidden_states_norms
        units: list[Unit] = [Stem("stem", swin.embeddings)]
        for s, stage in enumerate(swin.encoder.layers):
            for b, layer in enumerate(stage.blocks):
                name = f"stages.{s}.blocks.{b}"
                decisions = [
                    d for d in (f"{name}.heads", f"{name}.mlp_ratio") if d in self.positions
                ]
                units.append(Block(name, layer, decisions, self._runs(name), self.divisor))
            units.append(Output(f"stages.{s}.output", norms[f"stage{s + 1}"], stage.downsample))
        names = [d.name for d in self.decisions if d.name.startswith("decoder.")]
        patch_size = self.config.backbone_config.patch_size
        decoder = Decoder(
            "decoder", model.decode_head, names, divisor=self.divisor, patch_size=patch_size
        )
        return [*units, decoder]

    def original_state(self, model: ElasticModel) -> dict[str, Tensor]:
        """The state dict of the original model with an elastic model's weights."""
        encoder = "backbone.swin.encoder.layers."
        state: dict[str, Tensor] = {}
        for unit in model.chain:
            stage = unit.name.split(".")[1] if "." in unit.name else ""
            if isinstance(unit, Stem):
                state |= plain_state(unit.embeddings, "backbone.swin.embeddings.")
            elif isinstance(unit, Block):
                state |= plain_state(unit.layer, f"{encoder}{unit.name.removeprefix('stages.')}.")
            elif isinstance(unit, Output):
                norm = f"backbone.hidden_states_norms.stage{int(stage) + 1}."
                state |= plain_state(unit.norm, norm)
                if unit.downsample is not None:
                    state |= plain_state(unit.downsample, f"{encoder}{stage}.downsample.")
            elif isinstance(unit, Decoder):
                state |= plain_state(unit.head, "decode_head.")
        return state


def _config(
    variant: str | None,
    arguments: Mapping[str, Any],
    backbone: Mapping[str, Any],
    num_classes: int,
) -> UperNetConfig:
    swin: dict[str, Any] = {}
    if variant is not None:
        if variant not in _VARIANTS:
            raise InvalidValueError(
                f"variant: there is no Swin {variant!r}; {nearest(variant, _VARIANTS)}"
            )
        width, depths, heads, window = _VARIANTS[variant]
        swin = {"embed_dim": width, "depths": depths, "num_heads": heads, "window_size": window}
    given = checked_arguments(
        UperNetConfig, arguments, field="arguments", without=(*BASE_FIELDS, "backbone_config")
    )
    inner = checked_arguments(SwinConfig, backbone, field="backbone", without=BASE_FIELDS)
    if type(inner.get("patch_size", 4)) is not int:
        raise InvalidValueError(
            f"backbone.patch_size must be a whole number, but got {inner['patch_size']}"
        )

    def made(arguments: Mapping[str, Any], backbone: Mapping[str, Any]) -> UperNetConfig:
        own = swin | dict(backbone)
        stages = len(own.get("depths", SwinConfig().depths))
        own["out_features"] = [f"stage{i + 1}" for i in range(stages)]
        return UperNetConfig(
            backbone_config=SwinConfig(**own),
            num_labels=num_classes,
            **{"use_auxiliary_head": False, **arguments},
        )

    config = tried(lambda inner: made(given, inner), inner, field="backbone")
    own = config.backbone_config
    if len(own.num_heads) != len(own.depths):
        raise InvalidValueError(
            f"backbone.num_heads must have an entry for each of {len(own.depths)} stages (depths), "
            f"but got {list(own.num_heads)}"
        )
    widths = [own.embed_dim * 2**stage for stage in range(len(own.depths))]
    multiple_of_heads("backbone.embed_dim, doubled each stage,", widths, own.num_heads)
    model = UperNetForSemanticSegmentation
    with torch.device("meta"):
        if inner:
            tried(lambda inner: model(made({}, inner)), inner, field="backbone")
        if given:
            tried(lambda given: model(made(given, inner)), given, field="arguments")
    return config
