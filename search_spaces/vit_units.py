"""Units of timm's vision transformers: stem, blocks with fewer heads and narrower MLPs, exits."""

import copy

import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.elastic import (
    ChannelGroup,
    Choice,
    ElasticLinear,
    Onto,
    Reader,
    State,
    Unit,
    fill,
)
from paretopath.paths import Condition
from search_spaces.timm_alone import Block, VisionTransformer
from search_spaces.widths import channels


class Stem(Unit):
    """Patch embedding, prefix tokens and positions: images (B, C, Y, X) -> tokens (B, N, D)."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__("stem")
        self.vit = without_parts(vit, "norm", "fc_norm", "head", "attn_pool")
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


def last_of(vit: VisionTransformer) -> "PlainExit":
    """A copy of final norm, pooling and classifier."""
    return PlainExit(without_parts(vit, "patch_embed", "blocks", "norm_pre", "patch_drop"))


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

    def __init__(
        self, name: str, block: Block, requires: Condition | None, divisor: int = 1
    ) -> None:
        super().__init__(name, decisions=(f"{name}.heads", f"{name}.mlp_ratio"), requires=requires)
        self.divisor = divisor  # of hidden channels
        attn, mlp = block.attn, block.mlp
        self.num_heads, self.head_dim = int(attn.num_heads), int(attn.head_dim)
        attn.qkv = ElasticLinear.of(_reorder_rows(attn.qkv, (3, self.num_heads, self.head_dim)))
        attn.proj = ElasticLinear.of(attn.proj)
        mlp.fc1 = ElasticLinear.of(mlp.fc1)
        mlp.fc2 = ElasticLinear.of(mlp.fc2)
        self.block = block

    def _widths(self, choice: Choice) -> tuple[int, int]:
        """Heads and hidden channels of a choice."""
        share = choice[self.decisions[1]]
        hidden = channels(self.block.mlp.fc1.out_features, share, self.divisor)
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


def without_parts(vit: VisionTransformer, *parts: str) -> VisionTransformer:
    """A copy of a transformer with some of its parts replaced by identities; those parts are not
    copied.
    """
    memo = {
        id(getattr(vit, part)): nn.Identity() for part in parts if getattr(vit, part) is not None
    }
    memo |= {id(vit.blocks): nn.Identity()}
    return copy.deepcopy(vit, memo)  # type: ignore[arg-type]
