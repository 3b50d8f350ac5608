"""Paths and policies searched together, against one after the other, on the same weights.

    paretopath search recipes/digits_vit.yaml
    python benchmarks/exits_search.py RUN [--trials 200] [--seeds 0 1 2] [--kept FILE]

RUN is a run directory with weights; FILE keeps what has run. Three ways, each with the same number
of evaluations where it has any: paths are searched, then policies on those of the front; policies
on the full path alone; and a search whose paths say themselves what share of their images leaves at
each exit. What each finds then gets the same: thresholds searched on validation over its paths,
with what was fitted to each path and to each exit on its way. Everything is chosen on validation;
the hypervolume of expected energy and accuracy, as a share of the full path's energy times 1, is
also of the test split, by which nothing was chosen. What exits say is computed in bfloat16 where
the processor does.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from environment import fast_forward, save

from paretopath.elastic.exits import exits_on_the_way
from paretopath.front.dominance import hypervolume, pareto_front
from paretopath.jobs.leaving import left_early
from paretopath.jobs.scoring import cost_of, search_evaluator
from paretopath.paths import ExecutionPath
from paretopath.policies.costs import exit_costs
from paretopath.policies.outputs import gather_outputs
from paretopath.policies.points import PathPolicies, dynamic_points, split_result
from paretopath.policies.search import search_policies
from paretopath.policies.shares import LeavingCosts, LeavingSpace
from paretopath.run import Parts, Run, assemble, load_model
from paretopath.search import SearchSettings, search
from paretopath.search.trials import evaluated

COST = "energy_mj"


class Comparison:
    """One run's model, costs and images.

    Args:
        run: with weights.
    """

    def __init__(self, run: Run) -> None:
        self.run = run
        self.parts: Parts = assemble(run)
        self.model = load_model(self.parts.space, run.weights_file, run).eval()
        self.leaving = LeavingSpace(self.parts.space)
        self.full = self.parts.space.full
        self._known: dict[ExecutionPath, tuple[Any, ...]] = {}

    def search(
        self, trials: int, seed: int, *, together: bool
    ) -> tuple[list[ExecutionPath], float]:
        """The paths, without policies, of the front that a search finds, and its seconds."""
        parts = self.parts
        space = self.leaving if together else parts.space
        pricer = LeavingCosts(self.leaving, parts.table) if together else parts.table
        began = time.process_time()
        with tempfile.TemporaryDirectory() as folder:
            evaluator = search_evaluator(
                parts.images,
                self.model,
                self.run.recipe,
                pricer=pricer,
                races=Path(folder) / "races",
                leaving=self.leaving if together else None,
            )
            settings = SearchSettings(trials=trials, seed=seed, cost=COST)
            study = search(space, pricer, evaluator, settings, run_dir=folder)
            found = evaluated(study, space)
        seconds = time.process_time() - began
        if together:
            return list(left_early(self.leaving, found, cost_of(pricer, COST))), seconds
        done = [t for t in found if t.state.name == "COMPLETE"]
        stays = pareto_front([t.score.value for t in done], [t.costs[COST] for t in done])
        return [t.path for t, stay in zip(done, stays, strict=True) if stay], seconds

    def policies(self, path: ExecutionPath) -> tuple[Any, ...]:
        """The policies that were tried of a path, and what its exits say on test."""
        if path not in self._known:
            scoring, model = self.parts.images, self.model
            exits = exits_on_the_way(model, path)
            fitted = scoring.evaluator(model, "validation")
            model.own = fitted.own([found.path for found in exits])
            with fast_forward():
                validation, test = (
                    gather_outputs(model, path, scoring.data.loader(split), scoring.task)
                    for split in ("validation", "test")
                )
            model.own = {}
            costs = exit_costs(self.parts.table, exits)
            self._known[path] = validation, test, costs
        return self._known[path]

    def hypervolumes(self, paths: Sequence[ExecutionPath]) -> dict[str, Any]:
        """What the policies of some paths, and of the full one, come to."""
        paths = list(dict.fromkeys([*paths, self.full]))
        tests, tried = {}, []
        reference = self.policies(self.full)[0].right[-1]
        for path in paths:
            validation, tests[path], costs = self.policies(path)
            found = search_policies(validation, costs, reference, cost=COST)
            tried.append(PathPolicies(path, "searched", validation, costs, found))
        by_path = {one.path: one for one in tried}
        points = dynamic_points(tried, by_path[self.full], cost=COST)
        on_test = [
            split_result(
                p.policy, tests[p.path], tests[self.full].right[-1], by_path[p.path].costs, COST
            )
            for p in points
        ]
        whole = float(self.parts.table([self.full])[COST][0])

        def volume(results: Sequence[Any]) -> float:
            area = hypervolume([r.accuracy for r in results], [r.cost for r in results], (0, whole))
            return float(area / whole)

        return {
            "paths": len(paths),
            "validation": volume([p.validation for p in points]),
            "test": volume(on_test),
            "cheapest_within_a_point": min(
                (p.validation.cost / whole for p in points if p.promised_loss <= 0.01), default=1.0
            ),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--kept", type=Path, help="rows that have run; written as they are found")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    compared = Comparison(Run.open(arguments.run, device="cpu"))
    kept: Path | None = arguments.kept
    rows: list[dict[str, Any]] = json.loads(kept.read_text()) if kept and kept.is_file() else []
    done = {(row["way"], row["seed"]) for row in rows}

    def add(row: dict[str, Any], paths: Sequence[ExecutionPath]) -> None:
        rows.append(row | compared.hypervolumes(paths))
        show(rows[-1])
        if kept:
            kept.write_text(json.dumps(rows))

    if ("full path", None) not in done:
        add({"way": "full path", "seed": None}, [])
    for seed in arguments.seeds:
        for way, together in (("paths, then policies", False), ("together", True)):
            if (way, seed) not in done:
                paths, seconds = compared.search(arguments.trials, seed, together=together)
                add({"way": way, "seed": seed, "search_seconds": seconds}, paths)
    compare(rows)
    save(
        f"exits_search_{compared.run.recipe.name}",
        {"recipe": compared.run.recipe.name, "trials": arguments.trials, "rows": rows},
    )


def show(row: dict[str, Any]) -> None:
    """Prints one way's figures."""
    print(
        f"{row['way']:>22}, seed {row['seed']}: hypervolume {row['validation']:.4f} on validation, "
        f"{row['test']:.4f} on test; {row['paths']} paths, "
        f"{row.get('search_seconds', 0):.0f} s of search",
        flush=True,
    )


def compare(rows: list[dict[str, Any]]) -> None:
    """Prints ratios of what is left to 1 of the hypervolumes, seed by seed."""
    by_seed = {(r["way"], r["seed"]): r for r in rows}
    for split in ("validation", "test"):
        seeds = sorted({seed for _, seed in by_seed if seed is not None})
        pairs = [
            (by_seed["paths, then policies", s][split], by_seed["together", s][split])
            for s in seeds
        ]
        ratios = [(1 - after) / (1 - before) for before, after in pairs]
        print(
            f"{split}: together over one after the other, hypervolume "
            f"{np.mean([after / before for before, after in pairs]):.4f}x, "
            f"what is missing of 1 {np.mean(ratios):.3f}x "
            f"({', '.join(f'{ratio:.3f}' for ratio in ratios)})"
        )


if __name__ == "__main__":
    main()
