"""Exits, and their heads inside a vision transformer: tokens (B, N, D) -> logits (B, num_classes).

Early tokens are not what the last classifier was made for. The kinds follow Bakhtiarnia et al.,
"Multi-Exit Vision Transformer for Dynamic Inference" (arXiv 2106.15183), and Xu et al., "LGViT:
Dynamic Early Exiting for Accelerating Vision Transformer" (arXiv 2308.00255).
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from paretopath.elastic import Choice, ElasticLinear, State, Unit
from paretopath.paths import Condition
from search_spaces.timm_alone import AttentionPoolLatent, VisionTransformer

HeadKind = Literal["reuse", "linear", "mlp", "attention", "convolution"]
"""What an exit is: the model's own last norm and classifier (a copy), or a head of its own."""

_ATTENTION_WIDTH = 64  # channels of each head that pools


class Exit(Unit):
    """A head, which ends the path: a state -> logits (B, num_classes).

    Args:
        name: of the unit.
        head: a module of plain layers.
        requires: where the path ends here.
        classifier: the name of the head's linear layer that gives the logits.
        decisions: on which the shape of the state depends.
    """

    is_exit = True

    def __init__(
        self,
        name: str,
        head: nn.Module,
        requires: Condition,
        classifier: str = "classifier",
        *,
        decisions: Sequence[str] = (),
    ) -> None:
        super().__init__(name, decisions=decisions, requires=requires)
        self._classifier = classifier
        linear = head.get_submodule(classifier)
        assert isinstance(linear, nn.Linear)
        head.set_submodule(classifier, ElasticLinear.of(linear))
        self.head = head

    def forward(self, state: State, choice: Choice) -> State:
        return self.head(state)

    def extract(self, choice: Choice) -> nn.Module:
        plain, classifier = copy.deepcopy(self.head), self.head.get_submodule(self._classifier)
        assert isinstance(classifier, ElasticLinear)
        narrow = classifier.narrow(classifier.in_features, classifier.out_features)
        plain.set_submodule(self._classifier, narrow)
        return plain


class PooledHead(nn.Module):
    """Mean over positions, norm and a linear classifier, behind features of any shape.

    Args:
        channels: of the features.
        axis: where they are, batch first.
        classes: told apart.
    """

    def __init__(self, channels: int, axis: int, classes: int) -> None:
        super().__init__()
        self.axis = axis
        self.norm = nn.LayerNorm(channels)
        self.classifier = nn.Linear(channels, classes)

    def forward(self, features: Tensor) -> Tensor:
        """(B, …, channels, …) -> (B, classes)."""
        pooled = features.movedim(self.axis, 1).flatten(2).mean(2)
        logits: Tensor = self.classifier(self.norm(pooled))
        return logits


class Pooled(nn.Module):
    """Class token and mean of the patches, each normalised: (B, N, D) -> (B, features).

    Args:
        vit: whose tokens.

    Attributes:
        features: 2 D, or D where there is no class token.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(vit.embed_dim)
        self.prefix = int(vit.num_prefix_tokens)
        self.has_class_token = bool(vit.has_class_token)
        self.features = vit.embed_dim * (2 if self.has_class_token else 1)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(tokens)
        mean = x[:, self.prefix :].mean(1)
        return torch.cat([x[:, 0], mean], 1) if self.has_class_token else mean


class LinearHead(nn.Module):
    """Norm, pooling and a linear classifier."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.pool = Pooled(vit)
        self.classifier = nn.Linear(self.pool.features, vit.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(tokens))
        return logits


class MlpHead(nn.Module):
    """Norm, pooling, a hidden layer as wide as the tokens, and a linear classifier."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        self.pool = Pooled(vit)
        self.hidden = nn.Linear(self.pool.features, vit.embed_dim)
        self.act = nn.GELU()
        self.classifier = nn.Linear(vit.embed_dim, vit.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.act(self.hidden(self.pool(tokens))))
        return logits


class AttentionHead(nn.Module):
    """A learned query that looks at all tokens, and a linear classifier."""

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        width = vit.embed_dim
        self.norm = nn.LayerNorm(width)
        heads = next(h for h in range(max(1, width // _ATTENTION_WIDTH), 0, -1) if width % h == 0)
        self.pool = AttentionPoolLatent(width, num_heads=heads, mlp_ratio=1.0)
        self.classifier = nn.Linear(width, vit.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        logits: Tensor = self.classifier(self.pool(self.norm(tokens)))
        return logits


class ConvolutionHead(nn.Module):
    """Pointwise, depthwise 3x3 and pointwise convolution over the patches, their mean beside the
    class token, and a linear classifier: what LGViT calls local perception.
    """

    def __init__(self, vit: VisionTransformer) -> None:
        super().__init__()
        width = vit.embed_dim
        self.norm = nn.LayerNorm(width)
        self.prefix = int(vit.num_prefix_tokens)
        self.has_class_token = bool(vit.has_class_token)
        sizes = zip(vit.patch_embed.img_size, vit.patch_embed.patch_size, strict=True)
        self.grid = tuple(-(-pixels // side) for pixels, side in sizes)  # with padding
        self.expand = nn.Linear(width, width)
        self.depthwise = nn.Conv2d(width, width, 3, padding=1, groups=width)
        self.reduce = nn.Linear(width, width)
        self.act = nn.GELU()
        features = width * (2 if self.has_class_token else 1)
        self.classifier = nn.Linear(features, vit.num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.norm(tokens)
        patches = self.act(self.expand(x[:, self.prefix :]))  # (B, Y X, D)
        image = patches.transpose(1, 2).unflatten(2, self.grid)  # (B, D, Y, X)
        local = self.act(self.depthwise(image)).flatten(2).transpose(1, 2)
        mean = self.reduce(local).mean(1)
        pooled = torch.cat([x[:, 0], mean], 1) if self.has_class_token else mean
        logits: Tensor = self.classifier(pooled)
        return logits


OWN_HEADS: Mapping[str, Callable[[VisionTransformer], nn.Module]] = {
    "linear": LinearHead,
    "mlp": MlpHead,
    "attention": AttentionHead,
    "convolution": ConvolutionHead,
}
"""Heads that an exit has for itself, by kind; each ends with a ``classifier``."""
