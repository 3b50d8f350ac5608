"""The analytic accelerator against ZigZag's mapper, layer by layer, on the same hardware.

    python benchmarks/cost_vs_zigzag.py [--designs tpu_like …] [--cache DIR] [--workers 2]

Energy is compared with the mapping that ZigZag finds when it optimises energy, latency with the one
for latency; nothing is fitted. "MACs alone" is multiply-accumulates times one factor a design, the
median ratio.

ZigZag's results are kept in results/cost_vs_zigzag.json and read from there; what is missing is
computed, in seconds a layer (pip install 'paretopath[zigzag]'). Writes the table into
docs/cost_models.md and the scatter beside it.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from cost_layers import distinct_layers
from environment import RESULTS, save
from scatter import Panel, draw
from scipy.stats import spearmanr

from paretopath.cost import create
from paretopath.cost.accelerator import AcceleratorModel
from paretopath.tracing import Layer

Floats = npt.NDArray[np.float64]
NAME = "cost_vs_zigzag"
DESIGNS = ("tpu_like", "edge_tpu_like", "tesla_npu_like", "meta_prototype", "ascend_like")
QUANTITIES = ("energy_mj", "latency_ms")
TARGETS = {"energy_mj": (0.999, 0.02, 0.06), "latency_ms": (0.985, 0.05, 0.15)}
DOCS = Path(__file__).parents[1] / "docs"
BEGIN, END = "<!-- cost_vs_zigzag: begin -->", "<!-- cost_vs_zigzag: end -->"


def recorded() -> dict[str, dict[str, list[float]]]:
    """ZigZag's results by design, from earlier runs."""
    file = RESULTS / f"{NAME}.json"
    return dict(json.loads(file.read_text())["zigzag"]) if file.exists() else {}


def reference(
    design: str, layers: Sequence[Layer], cache: Path | None, workers: int
) -> dict[str, list[float]]:
    """What ZigZag finds for each layer."""
    costs = create("mapper", preset=design, cache_dir=cache, workers=workers).price(layers)
    return {name: costs[name].tolist() for name in (*QUANTITIES, "dram_bytes")}


def agreement(found: Floats, wanted: Floats) -> dict[str, float]:
    """Rank correlation and relative errors."""
    errors = np.abs(found / wanted - 1)
    return {
        "spearman": float(spearmanr(found, wanted).statistic),
        "median": float(np.median(errors)),
        "p90": float(np.percentile(errors, 90)),
        "max": float(errors.max()),
    }


def pricing_speed(design: str, layers: Sequence[Layer]) -> float:
    """Distinct layers priced in a second of one core's time: median of five fresh models."""
    times = []
    for _ in range(5):
        model = create("accelerator", preset=design)
        start = time.process_time()
        model.price(layers)
        times.append(time.process_time() - start)
    return len(layers) / float(np.median(times))


def compare(design: str, layers: Sequence[Layer], zigzag: dict[str, list[float]]) -> dict[str, Any]:
    """Both models and MACs alone, by quantity."""
    model = create("accelerator", preset=design)
    assert isinstance(model, AcceleratorModel)
    costs = model.price(layers)
    macs = np.array([layer.macs for layer in layers], dtype=np.float64)
    result: dict[str, Any] = {"accelerator": {}, "macs": {}}
    for quantity in QUANTITIES:
        wanted = np.array(zigzag[quantity])
        result["accelerator"][quantity] = agreement(costs[quantity], wanted)
        result["macs"][quantity] = agreement(macs * np.median(wanted / macs), wanted)
    return result


def table(results: dict[str, Any]) -> str:
    """The comparison in Markdown."""
    lines = [
        "| design | quantity | Spearman | median error | 90th percentile | largest "
        "| MACs alone: Spearman | median error | 90th percentile |",
        "| --- " * 9 + "|",
    ]
    for design, result in results.items():
        for quantity in QUANTITIES:
            ours, macs = (result[model][quantity] for model in ("accelerator", "macs"))
            cells = [f"`{design}`", quantity.split("_")[0], f"{ours['spearman']:.5f}"]
            cells += [f"{100 * ours[name]:.4f} %" for name in ("median", "p90", "max")]
            cells += [f"{macs['spearman']:.3f}"]
            cells += [f"{100 * macs[name]:.0f} %" for name in ("median", "p90")]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def write_docs(results: dict[str, Any], layers: Sequence[Layer], speed: dict[str, float]) -> None:
    """Puts the table between its marks, and draws the scatter."""
    page = DOCS / "cost_models.md"
    before, rest = page.read_text().split(BEGIN)
    _, after = rest.split(END)
    text = table(results)
    rates = ", ".join(f"{rate:.0f} (`{design}`)" for design, rate in speed.items())
    text += f"\n\nDistinct layers priced in a second on one core: {rates}."
    page.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    zigzag = recorded()
    panels = []
    for quantity, unit in (("energy_mj", "energy, mJ"), ("latency_ms", "latency, ms at 1 GHz")):
        series = {
            design: (
                zigzag[design][quantity],
                create("accelerator", preset=design).price(layers)[quantity].tolist(),
            )
            for design in results
        }
        panels.append(Panel(unit, "ZigZag's mapper", "accelerator", series))
    (DOCS / f"{NAME}.svg").write_text(draw(panels))


def main() -> None:
    """Compares, writes and prints."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--designs", nargs="+", default=list(DESIGNS))
    parser.add_argument("--cache", type=Path, help="where ZigZag's results are kept, one a file")
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    layers = distinct_layers()
    zigzag = recorded()
    for design in arguments.designs:
        if design not in zigzag:
            zigzag[design] = reference(design, layers, arguments.cache, arguments.workers)
    results = {design: compare(design, layers, zigzag[design]) for design in arguments.designs}
    speed = {design: round(pricing_speed(design, layers)) for design in arguments.designs}
    missed = [
        f"{design} {quantity}"
        for design, result in results.items()
        for quantity, (spearman, median, p90) in TARGETS.items()
        if result["accelerator"][quantity]["spearman"] < spearman
        or result["accelerator"][quantity]["median"] > median
        or result["accelerator"][quantity]["p90"] > p90
    ]
    save(
        NAME,
        {
            "layers": len(layers),
            "targets": TARGETS,
            "missed": missed,
            "results": results,
            "layers_per_second": speed,
            "zigzag": zigzag,
        },
    )
    write_docs(results, layers, speed)
    print(table(results))
    print("layers a second on one core:", speed)
    print("targets missed:", ", ".join(missed) or "none")


if __name__ == "__main__":
    main()
