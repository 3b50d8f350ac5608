"""Units of timm's vision transformers: stem, blocks with fewer heads and narrower MLPs, exits."""

import copy

from torch import Tensor, nn

from paretopath.elastic import (
    ChannelGroup,
    Choice,
    Onto,
    State,
    Unit,
)
from paretopath.paths import Condition
from search_spaces.blocks.heads import find_heads
from search_spaces.blocks.layers import narrowed
from search_spaces.blocks.spans import Group, Span
from search_spaces.blocks.unit import channel_group, make_elastic, plain_copy
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
    """A transformer block that runs with its first heads and first MLP channels."""

    def __init__(
        self, name: str, block: Block, requires: Condition | None, divisor: int = 1
    ) -> None:
        super().__init__(name, decisions=(f"{name}.heads", f"{name}.mlp_ratio"), requires=requires)
        self.divisor = divisor  # of hidden channels
        hidden = block.mlp.fc1.out_features
        span = Span("mlp.fc2", 0, hidden)
        self.groups = (*find_heads(block), Group("mlp", hidden, 1, ("mlp.fc1",), (span,)))
        make_elastic(block, self.groups)
        self.block = block

    def _kept(self, choice: Choice) -> dict[str, int]:
        """Heads and hidden channels of a choice."""
        heads, share = (choice[name] for name in self.decisions)
        hidden = channels(self.block.mlp.fc1.out_features, share, self.divisor)
        return {"attn": int(heads), "mlp": hidden}

    def forward(self, state: State, choice: Choice) -> State:
        kept, block, x = self._kept(choice), self.block, state  # (B, N, D)
        with narrowed(kept, {"attn.proj": Onto(x, block.ls1)}):
            x = x + block.drop_path1(block.ls1(block.attn(block.norm1(x))))
        with narrowed(kept, {"mlp.fc2": Onto(x, block.ls2)}):
            return x + block.drop_path2(block.ls2(block.mlp(block.norm2(x))))

    def extract(self, choice: Choice) -> nn.Module:
        with narrowed(self._kept(choice)):
            return plain_copy(self.block)

    def channel_groups(self) -> list[ChannelGroup]:
        return [channel_group(self.block, group).inside("block") for group in self.groups]


def without_parts(vit: VisionTransformer, *parts: str) -> VisionTransformer:
    """A copy of a transformer with some of its parts replaced by identities; those parts are not
    copied.
    """
    memo = {
        id(getattr(vit, part)): nn.Identity() for part in parts if getattr(vit, part) is not None
    }
    memo |= {id(vit.blocks): nn.Identity()}
    return copy.deepcopy(vit, memo)  # type: ignore[arg-type]
