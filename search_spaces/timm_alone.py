"""timm, without what only its training script uses.

timm imports W&B where it is installed, which takes half a second: too long for a program that
deploys. What imports W&B itself, before or after, has it.
"""

import sys

_hidden = "wandb" not in sys.modules
if _hidden:
    sys.modules["wandb"] = None  # type: ignore[assignment]  # so an import fails, as timm expects
try:
    import timm
    from timm.layers import (
        Attention,
        AttentionPoolLatent,
        BatchNormAct2d,
        Conv2dSame,
        Mlp,
        get_notrace_functions,
        pad_same,
    )
    from timm.layers import Linear as TimmLinear
    from timm.models.vision_transformer import (
        Block,
        VisionTransformer,
        checkpoint_filter_fn,
    )
finally:
    if _hidden:
        del sys.modules["wandb"]

__all__ = [
    "Attention",
    "AttentionPoolLatent",
    "BatchNormAct2d",
    "Block",
    "Conv2dSame",
    "Mlp",
    "TimmLinear",
    "VisionTransformer",
    "checkpoint_filter_fn",
    "get_notrace_functions",
    "pad_same",
    "timm",
]
