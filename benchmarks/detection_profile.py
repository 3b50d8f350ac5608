"""Where the multiply-accumulates and the energy of mmdet's detectors are, part by part.

Each published config is traced at 800x1216 on the meta device, as `paretopath profile` does; energy
is the accelerator model's. Beside it the same model is run by mmdet itself on a CPU under torch's
FlopCounterMode, which sees no sampling either.

    uv run --all-extras python benchmarks/detection_profile.py [--figure docs/detection_profile.svg]
"""

import argparse
from collections import defaultdict
from html import escape
from pathlib import Path
from typing import Any

import torch
from environment import save
from torch.utils.flop_counter import FlopCounterMode

from paretopath.cost import create as cost_model
from paretopath.tracing import Tracer, build_on_meta
from search_spaces.detr.space import DetrSpace

CONFIGS = {
    "DETR": "detr_r50_8xb2-150e_coco",
    "Conditional DETR": "conditional-detr_r50_8xb2-50e_coco",
    "DAB-DETR": "dab-detr_r50_8xb2-50e_coco",
    "Deformable DETR": "deformable-detr_r50_16xb2-50e_coco",
    "DINO, 4 scales": "dino-4scale_r50_8xb2-12e_coco",
    "Faster R-CNN, R-50": "faster-rcnn_r50_fpn_1x_coco",
    "Mask R-CNN, Swin-T": "mask-rcnn_swin-t-p4-w7_fpn_1x_coco",
}
PARTS = ("backbone", "neck", "encoder", "decoder", "heads")
HEADS = ("exits", "queries", "rpn", "head")
COLOURS = ("#4477aa", "#66ccee", "#ccbb44", "#ee6677", "#aa3377")
SIZE = (800, 1216)


def ours(config: str) -> dict[str, Any]:
    """GMACs and energy in mJ of each part of the full path."""
    space = DetrSpace(config=config, image_size=SIZE)
    model = cost_model("accelerator", preset="magnet-16nm")
    macs, energy = defaultdict(float), defaultdict(float)
    for trace in Tracer(build_on_meta(space))(space.full):
        name = trace.unit.name.split(".")[0]
        part = "heads" if name in HEADS else name
        macs[part] += trace.macs / 1e9
        energy[part] += float(model.price(list(trace.layers)).energy_mj.sum())
    return {"gmacs": dict(macs), "energy_mj": dict(energy)}


def mmdets(config: str) -> float:
    """GMACs of mmdet's own forward pass, without masks: the space is of boxes."""
    from mmdet.structures import DetDataSample

    detector = DetrSpace(config=config, image_size=SIZE).reference()
    if hasattr(detector, "roi_head"):
        detector.roi_head.mask_head = None
    meta = {"img_shape": SIZE, "batch_input_shape": SIZE, "pad_shape": SIZE}
    sample = DetDataSample(metainfo=meta)
    detector.requires_grad_(False)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        detector._forward(torch.zeros(1, 3, *SIZE), [sample])
    return counter.get_total_flops() / 2e9


def figure(found: dict[str, Any]) -> str:
    """Stacked bars of shares, of multiply-accumulates and of energy, as SVG."""
    row, width, left = 26, 300, 150
    height = 60 + row * len(found)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + 2 * width + 60} {height}" '
        f'font-family="sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
    ]
    for panel, (key, unit) in enumerate((("gmacs", "GMACs"), ("energy_mj", "mJ"))):
        x0 = left + panel * (width + 40)
        title = "multiply-accumulates" if key == "gmacs" else "energy"
        parts.append(f'<text x="{x0}" y="16">{title} ({unit})</text>')
        for i, (name, of) in enumerate(found.items()):
            y = 30 + row * i
            if panel == 0:
                parts.append(
                    f'<text x="{left - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
                )
            total, x = sum(of[key].values()), float(x0)
            for part, colour in zip(PARTS, COLOURS, strict=True):
                value = of[key].get(part, 0.0)
                wide = width * value / total
                parts.append(
                    f'<rect x="{x:.1f}" y="{y}" width="{wide:.1f}" height="18" fill="{colour}"/>'
                )
                if wide > 30:
                    parts.append(
                        f'<text x="{x + 4:.1f}" y="{y + 13}" fill="white">{value:.1f}</text>'
                    )
                x += wide
    y = height - 18
    for i, (part, colour) in enumerate(zip(PARTS, COLOURS, strict=True)):
        x = left + 90 * i
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(f'<text x="{x + 16}" y="{y + 10}">{part}</text>')
    return "\n".join([*parts, "</svg>\n"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--figure", type=Path)
    given = parser.parse_args()
    found: dict[str, Any] = {}
    for name, config in CONFIGS.items():
        found[name] = {"config": config, **ours(config), "mmdet_gmacs": mmdets(config)}
        of = found[name]["gmacs"]
        total, peer = sum(of.values()), found[name]["mmdet_gmacs"]
        shown = ", ".join(f"{part} {of[part]:.1f}" for part in PARTS if part in of)
        print(f"{name}: {total:.1f} GMACs ({shown}); mmdet {peer:.1f}, {total / peer - 1:+.2%}")
    save("detection_profile", {"image_size": SIZE, "detectors": found})
    if given.figure:
        given.figure.write_text(figure(found))


if __name__ == "__main__":
    main()
