"""Vision transformers of timm: exits, skipped blocks, narrower MLPs, fewer attention heads.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv 2010.11929); the model is timm's
``VisionTransformer``.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from paretopath.elastic import ElasticSpace, Unit
from paretopath.elastic.options import (
    Count,
    Counts,
    Indices,
    Shares,
    checked,
    checked_arguments,
    tried,
)
from paretopath.elastic.proposal import Proposal
from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import Condition, Decision
from paretopath.weights.files import load_reference
from paretopath.weights.new import COPIED_EXITS, mark_new
from search_spaces.exit_heads import OWN_HEADS, Exit, HeadKind
from search_spaces.published import of_timm
from search_spaces.timm_alone import (
    Attention,
    Block,
    Mlp,
    VisionTransformer,
    checkpoint_filter_fn,
    timm,
)
from search_spaces.vit_units import Stem, VitBlock, last_of
from search_spaces.widths import fractions, multiple_of_heads


class VitSpace(ElasticSpace):
    """The paths of a timm vision transformer.

    Decisions: ``exit`` (after how many blocks the path ends), ``blocks.I.run``, ``blocks.I.heads``
    (attention heads kept) and ``blocks.I.mlp_ratio`` (share of the MLP's hidden channels kept).

    Args:
        model: a timm name such as ``vit_base_patch16_224``; None to construct from ``arguments``
            alone.
        arguments: constructor arguments of timm's ``VisionTransformer`` (``img_size``,
            ``patch_size``, ``embed_dim``, ``depth``, ``num_heads``, ``num_classes`` …).
        exits: block counts, each in [1, depth], after which a head sits; the last block's is always
            there. After each quarter of the depth by default.
        skippable: indices of the blocks that a path may skip, ``"all"`` or ``"none"``.
        heads: numbers of attention heads that a block may keep; halves of all heads by default.
        mlp_ratios: shares, in (0, 1], of the hidden channels that an MLP may keep.
        divisor: channels that are kept are a multiple of it, where there are enough.
        exit_head: what exits before the last block are: ``reuse``, copies of the model's last norm
            and classifier; or heads of their own, ``linear``, ``mlp``, ``attention`` or
            ``convolution`` (:mod:`search_spaces.exit_heads`).
        last_head: the same of the last block's; by default the model's own.

    Raises:
        InvalidValueError: an option outside its range, or a transformer whose blocks are not timm's
            standard ones.
    """

    @checked
    def __init__(
        self,
        *,
        model: str | None = None,
        arguments: Mapping[str, Any] | None = None,
        exits: Counts | None = None,
        skippable: Indices | str = "all",
        heads: Counts | None = None,
        mlp_ratios: Shares = (0.25, 0.5, 0.75, 1.0),
        divisor: Count = 8,
        exit_head: HeadKind = "reuse",
        last_head: HeadKind = "reuse",
    ) -> None:
        self.timm_name = model
        self.exit_head, self.last_head = exit_head, last_head
        self.arguments = checked_arguments(
            VisionTransformer,
            arguments or {},
            field="arguments",
            without=("device", "dtype"),
            may_be_zero=("reg_tokens",),
        )
        with torch.device("meta"):
            reference = _reference(model, self.arguments)
        depth = len(reference.blocks)
        all_heads = _check_blocks(reference)
        self.exits = _checked("exits", exits or _quarters(depth), 1, depth)
        self.mlp_ratios = fractions("mlp_ratios", mlp_ratios)
        self.divisor = divisor
        self.heads = _checked("heads", heads or _halves(all_heads), 1, all_heads)
        if isinstance(skippable, str) and skippable not in ("all", "none"):
            raise InvalidValueError(
                f"skippable must be a list of blocks, all or none, but got {skippable!r}; "
                f"{nearest(skippable, ['all', 'none'])}"
            )
        chosen = range(depth) if skippable == "all" else () if skippable == "none" else skippable
        self.skippable = frozenset(_within("skippable", list(chosen), 0, depth - 1))
        self.runs = [self._block_condition(i) for i in range(depth)]
        decisions = [Decision("exit", self.exits)]
        for i in range(depth):
            decisions += self._block_decisions(i)
        super().__init__(decisions, input_shape=_images(reference))
        self.num_classes = reference.num_classes

    def _block_condition(self, i: int) -> Condition | None:
        if i in self.skippable:
            return Condition(f"blocks.{i}.run", (True,))
        return self._reached(i)

    def _reached(self, i: int) -> Condition | None:
        """Where block i stands before the exit."""
        beyond = tuple(e for e in self.exits if e > i)
        return Condition("exit", beyond) if len(beyond) < len(self.exits) else None

    def _block_decisions(self, i: int) -> list[Decision]:
        decisions = []
        if i in self.skippable:
            decisions.append(Decision(f"blocks.{i}.run", (False, True), self._reached(i)))
        decisions.append(Decision(f"blocks.{i}.heads", self.heads, self.runs[i]))
        decisions.append(Decision(f"blocks.{i}.mlp_ratio", self.mlp_ratios, self.runs[i]))
        return decisions

    @classmethod
    def propose(cls, model: str, *, classes: int, size: int | None, pixels: int) -> Proposal:
        """See :meth:`ElasticSpace.propose`."""
        return of_timm(model, classes, size, pixels)

    def reference(self) -> VisionTransformer:
        """The original timm model with new random weights, in evaluation mode."""
        return _make(self.timm_name, self.arguments)

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        """Stem, blocks and exits; see :meth:`paretopath.elastic.ElasticSpace.units`."""
        vit = self.reference()
        if checkpoint is not None:
            load_reference(
                vit,
                checkpoint,
                replaceable=("head.",),
                adapt=lambda state: checkpoint_filter_fn(state, vit),  # positions of another size
            )
        units: list[Unit] = [Stem(vit)]
        for i, block in enumerate(vit.blocks):
            units.append(VitBlock(f"blocks.{i}", block, self.runs[i], self.divisor))
            if i + 1 in self.exits:
                units.append(self._exit(vit, i + 1, is_given=checkpoint is not None))
        return units

    def _exit(self, vit: VisionTransformer, depth: int, *, is_given: bool) -> Exit:
        """The exit after so many blocks.

        Args:
            vit: with the weights that are copied.
            depth: in blocks.
            is_given: whether they are a checkpoint's, which has no exits but the last.
        """
        is_last = depth == len(vit.blocks)
        kind = self.last_head if is_last else self.exit_head
        head = OWN_HEADS[kind](vit) if kind in OWN_HEADS else last_of(vit)
        classifier = "classifier" if kind in OWN_HEADS else "vit.head"
        exit_ = Exit(f"exits.{depth}", head, Condition("exit", (depth,)), classifier)
        if is_given and kind in OWN_HEADS:
            mark_new(exit_, f"no head of kind {kind}")
        elif is_given and not is_last:
            mark_new(exit_, COPIED_EXITS)
        return exit_


def _make(name: str | None, arguments: Mapping[str, Any]) -> VisionTransformer:
    """A transformer with new random weights, in evaluation mode."""
    if name is None:
        return VisionTransformer(**arguments).eval()
    return timm.create_model(name, **arguments).eval()  # type: ignore[no-any-return]


def _reference(name: str | None, arguments: Mapping[str, Any]) -> VisionTransformer:
    """The same, or InvalidValueError: no such model, none of the family, or wrong arguments."""
    sizes = {"embed_dim": 768, "num_heads": 12}  # timm's defaults
    if name is not None:
        if ":" not in name and not timm.is_model(name):
            legal = nearest(name, timm.list_models("vit_*"))
            raise InvalidValueError(f"model must be one of timm's, but got {name!r}; {legal}")
        whole = tried(lambda _: _make(name, {}), {}, field="model")
        if not isinstance(whole, VisionTransformer):
            raise InvalidValueError(
                f"model must be a timm VisionTransformer, but {name!r} is a "
                f"{type(whole).__name__}; the space blocks takes any model"
            )
        heads = getattr(whole.blocks[0].attn, "num_heads", 1)
        sizes = {"embed_dim": whole.embed_dim, "num_heads": heads}
    sizes |= arguments
    multiple_of_heads("arguments.embed_dim", [sizes["embed_dim"]], [sizes["num_heads"]])
    return tried(lambda given: _make(name, given), arguments, field="arguments")


def _check_blocks(vit: VisionTransformer) -> int:
    """The number of heads, after making sure that every block is one that the elastic form
    reproduces.
    """
    for block in vit.blocks:
        attn: Any = getattr(block, "attn", None)
        mlp: Any = getattr(block, "mlp", None)
        standard = {
            "block_fn": type(block) is Block,
            "attn_layer": type(attn) is Attention and attn.gate is None,
            "scale_attn_norm": isinstance(getattr(attn, "norm", None), nn.Identity),
            "mlp_layer": type(mlp) is Mlp and isinstance(mlp.fc1, nn.Linear),
            "scale_mlp_norm": isinstance(getattr(mlp, "norm", None), nn.Identity),
        }
        for argument, is_standard in standard.items():
            if not is_standard:
                raise InvalidValueError(
                    f"the space vit narrows timm's standard blocks alone, but {argument} of this "
                    f"transformer is another; legal: timm's default"
                )
    return int(vit.blocks[0].attn.num_heads)


def _images(vit: VisionTransformer) -> tuple[int, int, int]:
    """(C, Y, X) of the images for which a transformer on the meta device gives logits.

    Raises:
        InvalidValueError: it gives none; names the option of timm's that made it so.
    """
    size, patch = vit.patch_embed.img_size, vit.patch_embed.patch_size
    if vit.num_classes < 1:
        raise InvalidValueError(f"num_classes must be at least 1, but got {vit.num_classes}")
    if vit.global_pool == "":
        raise InvalidValueError(
            "global_pool must be token, avg, avgmax, max, map or prr, since an exit gives one "
            "output an image, but got ''"
        )
    if vit.weight_init_mode == "reset":
        raise InvalidValueError("weight_init must give weights, but got 'skip', which gives none")
    is_padded = any(pixels % side for pixels, side in zip(size, patch, strict=True))
    if is_padded and vit.patch_embed.dynamic_img_pad and not vit.dynamic_img_size:
        raise InvalidValueError(
            f"dynamic_img_pad needs dynamic_img_size where img_size, {size}, is no multiple of "
            f"patch_size, {patch}"
        )
    shape = (int(vit.in_chans), int(size[0]), int(size[1]))

    def run(_: Mapping[str, Any]) -> None:
        with torch.no_grad():
            vit(torch.empty(1, *shape, device="meta"))

    tried(run, {}, field="arguments")
    return shape


def _quarters(depth: int) -> list[int]:
    return sorted({max(1, round(depth * q / 4)) for q in (1, 2, 3, 4)})


def _halves(heads: int) -> list[int]:
    return sorted({max(1, heads // 2), heads})


def _within(name: str, values: Sequence[Any], low: float, high: float) -> tuple[Any, ...]:
    for value in values:
        if not (low <= value <= high) or isinstance(value, bool):
            raise InvalidValueError(f"{name} must lie in [{low}, {high}], but got {value}")
    return tuple(sorted(set(values)))


def _checked(name: str, values: Sequence[Any], low: float, high: float) -> tuple[Any, ...]:
    """Sorted distinct values; the fullest one must be the whole, so that the full path is the model
    itself.
    """
    legal = _within(name, values, low, high)
    if not legal or legal[0] <= 0 or legal[-1] != high:
        raise InvalidValueError(
            f"{name} must be above 0 and include {high}, but got {list(values)}"
        )
    return legal
