"""Vision transformers of timm: exits, skipped blocks, narrower MLPs, fewer attention heads.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (arXiv 2010.11929); the model is timm's
``VisionTransformer``.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.elastic import (
    ChannelGroup,
    Choice,
    ElasticLinear,
    ElasticSpace,
    Onto,
    Reader,
    State,
    Unit,
    fill,
)
from paretopath.elastic.options import (
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
from search_spaces.exit_heads import OWN_HEADS, HeadKind
from search_spaces.published import of_timm
from search_spaces.timm_alone import (
    Attention,
    Block,
    Mlp,
    VisionTransformer,
    checkpoint_filter_fn,
    timm,
)
from search_spaces.widths import channels, fractions, multiple_of_heads


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
            units.append(VitBlock(f"blocks.{i}", block, self.runs[i]))
            if i + 1 in self.exits:
                units.append(self._exit(vit, i + 1, is_given=checkpoint is not None))
        return units

    def _exit(self, vit: VisionTransformer, depth: int, *, is_given: bool) -> "Exit":
        """The exit after so many blocks.

        Args:
            vit: with the weights that are copied.
            depth: in blocks.
            is_given: whether they are a checkpoint's, which has no exits but the last.
        """
        is_last = depth == len(vit.blocks)
        kind = self.last_head if is_last else self.exit_head
        head = OWN_HEADS[kind](vit) if kind in OWN_HEADS else _last_of(vit)
        exit_ = Exit(f"exits.{depth}", head, Condition("exit", (depth,)))
        if is_given and kind in OWN_HEADS:
            mark_new(exit_, f"no head of kind {kind}")
        elif is_given and not is_last:
            mark_new(exit_, COPIED_EXITS)
        return exit_


class Stem(Unit):
    """Patch embedding, prefix tokens and positions: images (B, C, Y, X) -> tokens (B, N, D)."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__("stem")
        self.vit = _without(vit, "norm", "fc_norm", "head", "attn_pool")
        self.vit.blocks = nn.Sequential()

    def forward(self, state: State, choice: Choice) -> State:
        return self.vit.forward_features(state)

    def extract(self, choice: Choice) -> nn.Module:
        return PlainStem(copy.deepcopy(self.vit))


class PlainStem(nn.Module):
    """A timm vision transformer up to its first block."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.vit = vit

    def forward(self, images: Tensor) -> Tensor:
        tokens: Tensor = self.vit.forward_features(images)
        return tokens


class Exit(Unit):
    """A head, which ends the path: tokens (B, N, D) -> logits (B, num_classes)."""

    is_exit = True

    def __init__(self, name: str, head: nn.Module, requires: Condition) -> None:
        super().__init__(name, requires=requires)
        self._classifier = "vit.head" if isinstance(head, PlainExit) else "classifier"
        linear = head.get_submodule(self._classifier)
        assert isinstance(linear, nn.Linear)
        head.set_submodule(self._classifier, ElasticLinear.of(linear))
        self.head = head

    def forward(self, state: State, choice: Choice) -> State:
        return self.head(state)

    def extract(self, choice: Choice) -> nn.Module:
        plain, classifier = copy.deepcopy(self.head), self.head.get_submodule(self._classifier)
        assert isinstance(classifier, ElasticLinear)
        narrow = classifier.narrow(classifier.in_features, classifier.out_features)
        plain.set_submodule(self._classifier, narrow)
        return plain


def _last_of(vit: VisionTransformer) -> "PlainExit":
    """A copy of final norm, pooling and classifier."""
    return PlainExit(_without(vit, "patch_embed", "blocks", "norm_pre", "patch_drop"))


class PlainExit(nn.Module):
    """A timm vision transformer after its last block."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        vit.cls_token = vit.reg_token = vit.pos_embed = None
        self.vit = vit

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.vit.forward_head(self.vit.norm(tokens))
        return logits


class VitBlock(Unit):
    """A transformer block that runs with its first heads and first MLP channels.

    The rows of ``qkv`` are kept head by head (heads, 3, head_dim), so that the first heads are one
    view; timm's order (3, heads, head_dim) comes back on extraction.
    """

    def __init__(self, name: str, block: Block, requires: Condition | None) -> None:
        super().__init__(name, decisions=(f"{name}.heads", f"{name}.mlp_ratio"), requires=requires)
        attn, mlp = block.attn, block.mlp
        self.num_heads, self.head_dim = int(attn.num_heads), int(attn.head_dim)
        attn.qkv = ElasticLinear.of(_reorder_rows(attn.qkv, (3, self.num_heads, self.head_dim)))
        attn.proj = ElasticLinear.of(attn.proj)
        mlp.fc1 = ElasticLinear.of(mlp.fc1)
        mlp.fc2 = ElasticLinear.of(mlp.fc2)
        self.block = block

    def _widths(self, choice: Choice) -> tuple[int, int]:
        """Heads and hidden channels of a choice."""
        hidden = channels(self.block.mlp.fc1.out_features, choice[self.decisions[1]])
        return int(choice[self.decisions[0]]), hidden

    def forward(self, state: State, choice: Choice) -> State:
        heads, hidden = self._widths(choice)
        block, x = self.block, state  # (B, N, D)
        attended = self._attend(block.norm1(x), heads, Onto(x, block.ls1))
        x = x + block.drop_path1(block.ls1(attended))
        mlp = block.mlp
        h = mlp.drop1(mlp.act(mlp.fc1(block.norm2(x), hidden)))  # (B, N, hidden)
        return x + block.drop_path2(block.ls2(mlp.drop2(mlp.fc2(h, onto=Onto(x, block.ls2)))))

    def _attend(self, x: Tensor, heads: int, onto: Onto) -> Tensor:
        attn = self.block.attn
        b, n, _ = x.shape
        qkv = attn.qkv(x, heads * 3 * self.head_dim).view(b, n, heads, 3, self.head_dim)
        q, k, v = qkv.permute(3, 0, 2, 1, 4).unbind(0)  # (B, heads, N, head_dim) each
        dropout = attn.attn_drop.p if self.training else 0.0
        out = F.scaled_dot_product_attention(attn.q_norm(q), attn.k_norm(k), v, dropout_p=dropout)
        merged = out.transpose(1, 2).reshape(b, n, -1)
        projected: Tensor = attn.proj_drop(attn.proj(merged, onto=onto))
        return projected

    def extract(self, choice: Choice) -> nn.Module:
        heads, hidden = self._widths(choice)
        width = heads * self.head_dim
        block = copy.deepcopy(self.block)
        attn, mlp = block.attn, block.mlp
        narrow = self.block.attn.qkv.narrow(attn.qkv.in_features, 3 * width)
        attn.qkv = _reorder_rows(narrow, (heads, 3, self.head_dim))
        attn.proj = self.block.attn.proj.narrow(width, attn.proj.out_features)
        attn.num_heads, attn.attn_dim = heads, width
        mlp.fc1 = self.block.mlp.fc1.narrow(mlp.fc1.in_features, hidden)
        mlp.fc2 = self.block.mlp.fc2.narrow(hidden, mlp.fc2.out_features)
        plain: nn.Module = block
        return plain

    def channel_groups(self) -> list[ChannelGroup]:
        hidden = self.block.mlp.fc1.out_features
        heads, mlp = (Reader("block.attn.proj"),), (Reader("block.mlp.fc2"),)
        return [
            ChannelGroup(self.num_heads, ("block.attn.qkv",), heads),
            ChannelGroup(hidden, ("block.mlp.fc1",), mlp),
        ]


def _reorder_rows(linear: nn.Linear, shape: tuple[int, int, int]) -> nn.Linear:
    """A copy whose output channels (a, b, c) are stored as (b, a, c)."""

    def reordered(tensor: Tensor) -> Tensor:
        moved: Tensor = tensor.detach().unflatten(0, shape).transpose(0, 1).flatten(0, 2)
        return moved

    bias = reordered(linear.bias) if linear.bias is not None else None
    plain = nn.Linear(linear.in_features, linear.out_features, bias=bias is not None, device="meta")
    return fill(plain, weight=reordered(linear.weight), bias=bias)


def _without(vit: VisionTransformer, *parts: str) -> VisionTransformer:
    """A copy of a transformer with some of its parts replaced by identities; those parts are not
    copied.
    """
    memo = {
        id(getattr(vit, part)): nn.Identity() for part in parts if getattr(vit, part) is not None
    }
    memo |= {id(vit.blocks): nn.Identity()}
    return copy.deepcopy(vit, memo)  # type: ignore[arg-type]


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
                f"model must be a timm VisionTransformer, but {name!r} is a {type(whole).__name__}"
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
