"""Writes golden.json: what the accelerator prices layers at, to be reviewed when it changes.

python tests/pipeline/cost/write_golden.py
"""

import json
from pathlib import Path
from typing import Any

from paretopath.cost import create
from paretopath.recipe.presets import preset_names
from paretopath.tracing import Layer

FILE = Path(__file__).with_name("golden.json")
QUANTITIES = ("energy_mj", "latency_ms", "dram_bytes")
# From ResNet-50, ViT-B/16, its attention, SegFormer-B2, a depthwise layer, and odd sizes.
SHAPES: tuple[dict[str, int], ...] = (
    {"k": 64, "c": 3, "oy": 112, "ox": 112, "fy": 7, "fx": 7, "stride": 2, "iy": 224, "ix": 224},
    {"k": 64, "c": 64, "oy": 56, "ox": 56, "fy": 3, "fx": 3, "iy": 56, "ix": 56},
    {"k": 256, "c": 64, "oy": 56, "ox": 56},
    {"k": 512, "c": 512, "oy": 7, "ox": 7, "fy": 3, "fx": 3, "iy": 7, "ix": 7},
    {"k": 2048, "c": 512, "oy": 7, "ox": 7},
    {"k": 1000, "c": 2048, "oy": 1, "ox": 1},
    {"k": 2304, "c": 768, "oy": 197, "ox": 1},
    {"k": 2364, "c": 768, "oy": 197, "ox": 1, "groups": 12},
    {"k": 768, "c": 3072, "oy": 128, "ox": 128},
    {"k": 256, "c": 256, "oy": 128, "ox": 128, "fy": 3, "fx": 3, "groups": 256},
    {"k": 320, "c": 128, "oy": 32, "ox": 32, "fy": 3, "fx": 3, "stride": 2, "iy": 64, "ix": 64},
    {"k": 48, "c": 72, "oy": 9, "ox": 9, "fy": 3, "fx": 3, "iy": 9, "ix": 9, "batch": 4},
)


def price(preset: str) -> dict[str, list[float]]:
    """Every shape's costs, to ten digits."""
    costs = create("accelerator", preset=preset).price([Layer.conv(**shape) for shape in SHAPES])
    return {name: [float(f"{v:.10g}") for v in costs[name]] for name in QUANTITIES}


def text(content: dict[str, Any]) -> str:
    """JSON with a layer or a quantity a line."""
    shapes = ",\n".join(f"  {json.dumps(shape)}" for shape in content["layers"])
    presets = []
    for preset, costs in content["presets"].items():
        rows = ",\n".join(f'   "{name}": {json.dumps(v)}' for name, v in costs.items())
        presets.append(f'  "{preset}": {{\n{rows}\n  }}')
    joined = ",\n".join(presets)
    return f'{{\n "layers": [\n{shapes}\n ],\n "presets": {{\n{joined}\n }}\n}}\n'


if __name__ == "__main__":
    content = {"layers": SHAPES, "presets": {preset: price(preset) for preset in preset_names()}}
    FILE.write_text(text(content))
