"""Scoring a population through the prefix tree against scoring one path at a time.

    python benchmarks/prefix_tree.py [--rounds 5]

Three populations of 50 paths of a ViT on the digits: they differ in their exit alone, in later
    blocks alone, or
everywhere. Prints the unit-MACs run and the wall time of both ways, which take turns, and checks
that every accuracy is the same.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from environment import median, save

import search_spaces
from paretopath.cost import CostTable
from paretopath.cost import create as cost_model
from paretopath.data import load_data
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.prefixes import PrefixTree
from paretopath.evaluation.evaluator import Evaluator
from paretopath.paths import ExecutionPath, Value
from paretopath.recipe import load_recipe
from paretopath.tasks.registry import create_task

POPULATION = 50
RECIPE = Path(__file__).parents[1] / "recipes" / "digits_vit.yaml"


def population(space: ElasticSpace, kind: str) -> list[ExecutionPath]:
    """Fifty distinct paths that differ as ``kind`` says."""
    rng = np.random.default_rng(0)
    if kind == "exit only":
        return [space.canonical({"exit": value}) for value in space["exit"].values]
    last = space["exit"].values[-1]
    fixed = int(last) // 2 if kind == "later blocks only" else 0
    found: dict[ExecutionPath, None] = {}
    while len(found) < POPULATION:
        choice: dict[str, Value] = dict(space.sample(rng))
        if kind == "later blocks only":
            choice["exit"] = last
            for name in space.positions:
                if name.startswith("blocks.") and int(name.split(".")[1]) < fixed:
                    choice[name] = space[name].values[-1]
        found[space.canonical(choice)] = None
    return list(found)


def unit_macs(
    model: ElasticModel, table: CostTable, paths: Sequence[ExecutionPath]
) -> tuple[int, int]:
    """MACs of all steps that the tree runs for one image, and of all paths one by one."""
    costs = {path: {c.unit: c.costs["macs"] for c in table.breakdown(path)} for path in paths}
    tree = PrefixTree(model, paths)
    shared = 0
    for node in tree.nodes():
        below = node
        while not below.paths:
            below = below.children[0]
        shared += costs[paths[below.paths[0]]][node.step.unit.name]
    return shared, int(table(paths).macs.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    recipe = load_recipe(RECIPE)
    options = dict(recipe.space.options)
    depth = 50  # so that fifty paths can differ in their exit alone
    deep = {
        **options,
        "arguments": {**options["arguments"], "depth": depth},
        "exits": list(range(1, depth + 1)),
    }
    assert recipe.data is not None
    rows = []
    for name in ("exit only", "later blocks only", "everywhere"):
        space = search_spaces.create("vit", **(deep if name == "exit only" else options))
        torch.manual_seed(0)
        model = space.build()
        data = load_data(recipe.data, input_shape=space.input_shape)
        batches = list(data.loader("validation"))
        task = create_task(recipe.task, training=recipe.train)
        evaluate = Evaluator(model, batches, task)
        paths = population(space, name)
        table = CostTable(space, cost_model("accelerator", preset="magnet-16nm"))
        shared, alone = unit_macs(model, table, paths)
        together_s, alone_s = [], []
        for _ in range(rounds):
            start = time.perf_counter()
            together = evaluate(paths)
            middle = time.perf_counter()
            one_by_one = [evaluate([path])[0] for path in paths]
            together_s.append(middle - start)
            alone_s.append(time.perf_counter() - middle)
        assert together == one_by_one, "accuracies differ"
        rows.append(
            {
                "population": name,
                "paths": len(paths),
                "macs_ratio": alone / shared,
                "time_ratio": median([a / b for a, b in zip(alone_s, together_s, strict=True)]),
                "tree_s": median(together_s),
                "alone_s": median(alone_s),
            }
        )
        print(
            f"{name:18} {len(paths)} paths: unit-MACs 1/{rows[-1]['macs_ratio']:.2f}, "
            f"time {rows[-1]['alone_s']:.2f} s -> {rows[-1]['tree_s']:.2f} s "
            f"({rows[-1]['time_ratio']:.2f}x), accuracies equal"
        )
    save("prefix_tree", {"rounds": rounds, "populations": rows})


if __name__ == "__main__":
    main()
