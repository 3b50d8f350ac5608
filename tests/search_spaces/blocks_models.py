"""Models for the space blocks to take apart, and what holds for each."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import search_spaces
from paretopath.cost.table import CostTable
from paretopath.elastic import ElasticModel
from search_spaces.blocks.space import BlocksSpace
from tests.search_spaces.space_contract import MacsOnly, torchs_count

SMALL: dict[str, dict[str, Any]] = {
    "resnet": {
        "model": "resnet26",
        "arguments": {"channels": [8, 16, 16, 32], "num_classes": 7},
        "input_shape": [3, 32, 32],
        "exits": "stages",
    },
    "squeeze and excitation, normalisations with activations, padding by size": {
        "model": "test_efficientnet",
        "arguments": {"num_classes": 7, "in_chans": 1, "pad_type": "same"},
        "input_shape": [1, 64, 64],
        "input_scales": [0.75, 1.0],
        "stream_ratios": [0.5, 1.0],
    },
    "attention's heads, with a table for them": {
        "model": "swin_tiny_patch4_window7_224",
        "arguments": {
            **{"img_size": 32, "window_size": 4, "depths": [1, 1], "num_heads": [2, 4]},
            **{"embed_dim": 16, "num_classes": 5},
        },
    },
    "one's own, with long skips": {
        "model": "tests.search_spaces.blocks_models:UNet",
        "arguments": {"width": 8, "num_classes": 3},
        "input_shape": [3, 16, 16],
        "stream_ratios": [0.5, 1.0],
        "divisor": 1,
    },
}

# Each kind of attention; all have four heads.
ATTENTION: dict[str, dict[str, Any]] = {
    "timm's": {
        "model": "vit_tiny_patch16_224",
        "arguments": {
            **{"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 16, "num_heads": 4},
            "qk_norm": True,
        },
    },
    "PyTorch's": {
        "model": "torchvision.models.vision_transformer:VisionTransformer",
        "arguments": {
            **{"image_size": 16, "patch_size": 8, "num_layers": 1, "hidden_dim": 16},
            **{"num_heads": 4, "mlp_dim": 32},
        },
        "input_shape": [3, 16, 16],
    },
    "with rotary positions": {
        "model": "eva02_tiny_patch14_224",
        "arguments": {
            **{"img_size": 16, "patch_size": 8, "depth": 1, "embed_dim": 32, "num_heads": 4},
            **{"attn_type": "rope", "num_classes": 5},
        },
    },
}


class Pair(nn.Module):
    """Two convolutions, the channels between them nobody else's."""

    def __init__(self, channels: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, width, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv2(self.norm1(self.conv1(x)).relu()).relu()
        return out


class UNet(nn.Module):
    """A small encoder and decoder whose features skip over what lies between."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.fine = Pair(3, width)
        self.coarse = Pair(width, 2 * width)
        self.bottom = Pair(2 * width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.merged = Pair(2 * width, width)
        self.head = nn.Conv2d(width, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        fine = self.fine(x)
        coarse = self.coarse(nn.functional.max_pool2d(fine, 2))
        coarse = coarse + self.bottom(coarse)
        up = self.up(coarse)[:, :, : fine.shape[2], : fine.shape[3]]
        out: Tensor = self.head(self.merged(torch.cat([fine, up], dim=1)))
        return out


class Repeating(nn.Module):
    """Runs one of its parts twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.stem = Pair(3, width)
        self.again = Pair(width, width)
        self.narrow = Pair(width, 2 * width)
        self.head = nn.Conv2d(2 * width, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.narrow(self.again(self.again(self.stem(x)))))
        return out


class Keeping(nn.Module):
    """Adds to its input, and keeps what it computed on the way."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.into = nn.Linear(width, 2 * width)
        self.back = nn.Linear(2 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        self.kept = self.into(x)
        out: Tensor = x + self.back(self.kept.relu())
        return out


class WithDefaults(nn.Module):
    """Takes more than images, with defaults."""

    def __init__(self, width: int = 8) -> None:
        super().__init__()
        self.blocks = nn.Sequential(nn.Linear(3, width), Keeping(width), Keeping(width))
        self.head = nn.Linear(width, 4)

    def forward(self, x: Tensor, is_causal: bool = False, scale: float = 1.0) -> Tensor:
        out: Tensor = self.head(self.blocks(x.flatten(2).transpose(1, 2)).mean(1))
        return -out if is_causal else out


class Unmasked(nn.Module):
    """Images, and which of their pixels count: None where all do."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor | None]:
        return x, None


class Asking(nn.Module):
    """A model in a model, that asks what its images are, how many, or what is in them."""

    def __init__(self, asks: str) -> None:
        super().__init__()
        self.unmasked, self.inner = Unmasked(), WithDefaults()
        self.asks = asks

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != self.inner.head.weight.dtype or x.shape[-1] % 4:
            raise ValueError("not made for these images")
        x, mask = self.unmasked(x)
        if mask is not None and mask.any():
            x = x * mask
        if len(x) > 99 or (self.asks == "content" and x.max() > 99):
            x = x / 2
        if self.asks == "count":
            for _ in range(x.shape[0] // 99):
                x = x / 2
        out: Tensor = self.inner(x)
        return out


def make_space(**options: Any) -> BlocksSpace:
    space = search_spaces.create("blocks", **options)
    assert isinstance(space, BlocksSpace)
    return space


def original_of(model: ElasticModel) -> Callable[[Tensor], Tensor]:
    """The original model, from its own library, with an elastic model's weights."""
    assert isinstance(model.space, BlocksSpace)
    original = model.space.reference()
    original.load_state_dict(model.space.original_state(model))
    return original


def holds_the_invariants(space: BlocksSpace) -> None:
    """The original's output, the same in place and extracted, and torch's own counts."""
    torch.manual_seed(0)
    model = space.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    images = torch.randn(2, *space.input_shape)
    table = CostTable(space, MacsOnly())
    with torch.no_grad():
        torch.testing.assert_close(model(images), original_of(model)(images), rtol=1e-5, atol=1e-5)
    for path in (space.full, space.smallest, space.sample(np.random.default_rng(0))):
        static = model.extract(path)
        with torch.no_grad(), model.active(path):
            torch.testing.assert_close(static(images), model(images), rtol=1e-5, atol=1e-5)
        costs = table([path])
        flops, params, _ = torchs_count(static, torch.empty(1, *space.input_shape, device="meta"))
        assert (costs.macs[0] * 2, costs.params[0]) == (flops, params)
    assert table([space.smallest]).macs[0] < table([space.full]).macs[0]
