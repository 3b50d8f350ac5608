"""How much cheaper the search is than plain NSGA-II on a real SegFormer, and what of it is due to
what.

    python benchmarks/segformer_search.py --weights FOLDER --data FOLDER --work DIR [--seeds 0 1 2]
        [--problem all|decoder] [--small]

The baseline is Optuna's NSGA-II as it comes, 300 trials, each path evaluated alone on all
validation images. Its hypervolume is the target. Then the search of this package runs until it has
reached it, as it is and with one part switched off at a time: proposals (NSGA-II's in their place),
racing, shared prefixes, features that are computed once. Compute is counted in MACs of the units
that ran, image by image; wall time and this process's processor time are measured, with everything
in them but the calibration that all have in common; with one thread (``OMP_NUM_THREADS=1``) the
second is what the first would be on a machine that does nothing else. ``--problem decoder``
settles the encoder at its full width.

FOLDER of weights: as ``save_pretrained`` leaves it. FOLDER of data: train.parquet and
validation.parquet with the columns image and annotation. What has run is kept in DIR and not run
again.
"""

import argparse
import json
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from environment import median, save

from paretopath import jobs
from paretopath.cost import CostTable
from paretopath.data.mixing import Mixed
from paretopath.elastic import Step
from paretopath.errors import InvalidValueError
from paretopath.evaluation.evaluator import Evaluation, Evaluator
from paretopath.front import hypervolume_history
from paretopath.paths import ExecutionPath, Value
from paretopath.recipe import Racing, load_recipe
from paretopath.run import Parts, Run, assemble, load_model
from paretopath.search import SearchSettings, search
from paretopath.search.racing import Outcome, Racer
from paretopath.tasks.task import Score, Stopped

RECIPE = Path(__file__).parents[1] / "recipes" / "segformer_camvid.yaml"
DECODER_ONLY = {"stages.*": ("full",)}
PARTS = ("proposals", "racing", "sharing", "features")


class AloneEvaluation(Evaluation):
    """Every path runs all of its units itself."""

    def __init__(self, evaluator: Evaluator, paths: Sequence[ExecutionPath]) -> None:
        self._alone = [Evaluation(evaluator, [path]) for path in paths]
        self.scorers = [one.scorers[0] for one in self._alone]

    def advance(self, active: Sequence[int], *, batches: int | None = None) -> int:
        return max((self._alone[i].advance([0], batches=batches) for i in active), default=0)


class AloneEvaluator(Evaluator):
    """Scores each path by itself."""

    def begin(self, paths: Sequence[Any]) -> Evaluation:
        return AloneEvaluation(self, paths)


class Reached(Exception):
    """The target is reached: the search may end."""


@dataclass
class Meter:
    """Counts what a search spends and what it has found.

    Attributes:
        macs: by unit and choice, filled as paths come.
        rows: for each group of outcomes: seconds since the start by the clock and of processor
            time, MACs run so far, and for each path its accuracy, cost, whether it saw all images,
            and how many it saw.
    """

    table: CostTable
    evaluator: Evaluator
    cost: str
    start: float = field(default_factory=time.perf_counter)
    cpu_start: float = field(default_factory=time.process_time)
    macs: dict[tuple[str, Any], int] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)

    def take(self, paths: Sequence[ExecutionPath], outcomes: Sequence[Outcome]) -> None:
        """Notes the outcomes of some paths."""
        seconds = time.perf_counter() - self.start
        cpu_seconds = time.process_time() - self.cpu_start
        for path in paths:
            for unit in self.table.breakdown(path):
                self.macs[unit.unit, unit.trace.choice] = int(unit.costs["macs"])
        found = []
        costs = np.asarray(self.table(paths)[self.cost], dtype=float)
        for cost, outcome in zip(costs.tolist(), outcomes, strict=True):
            if isinstance(outcome, Score | Stopped):
                score = outcome.score if isinstance(outcome, Stopped) else outcome
                found.append([score.value, cost, isinstance(outcome, Score), score.samples])
        spent = {"seconds": seconds, "cpu_seconds": cpu_seconds, "macs": self.total()}
        self.rows.append({**spent, "paths": found})
        self.start = time.perf_counter() - seconds  # the metering itself is free
        self.cpu_start = time.process_time() - cpu_seconds

    def total(self) -> int:
        """MACs run so far."""
        return work_macs(self.evaluator.work, self.macs)


def work_macs(work: Counter[Step], macs: dict[tuple[str, Any], int]) -> int:
    """The MACs of all steps that ran, image by image."""
    return sum(images * macs[step.unit.name, step.choice] for step, images in work.items())


class Metered:
    """An evaluator of a search that ends it when the target is reached."""

    def __init__(self, inner: Any, meter: Meter, target: float | None, reference: float) -> None:
        self.inner, self.meter = inner, meter
        self.target, self.reference = target, reference

    def __call__(self, paths: Sequence[ExecutionPath]) -> list[Outcome]:
        outcomes: list[Outcome] = self.inner(paths)
        self.meter.take(paths, outcomes)
        volume = volumes(self.meter.rows, self.reference)[-1]
        print(f"  {self.meter.rows[-1]['seconds']:7.0f} s  hypervolume {volume:.5f}", flush=True)
        if self.target is not None and volume >= self.target:
            raise Reached
        return outcomes


def volumes(rows: Sequence[dict[str, Any]], reference: float) -> np.ndarray:
    """The hypervolume after each group, as the mean best accuracy over all budgets up to full."""
    accuracy, cost, ends = [], [], []
    for row in rows:
        for value, price, is_whole, _ in row["paths"]:
            accuracy.append(value if is_whole else np.nan)
            cost.append(price)
        ends.append(len(accuracy) - 1)
    return hypervolume_history(accuracy, cost, (0.0, reference))[ends] / reference


@dataclass(frozen=True)
class Bench:
    """What all variants have in common."""

    run: Run
    parts: Parts
    table: CostTable
    cost: str
    trials: int
    work: Path
    problem: str

    def afresh(self) -> "Bench":
        """The same with nothing priced yet, so that each variant pays for its own prices."""
        return replace(self, table=CostTable(self.parts.space, self.table.cost_model))

    @property
    def reference(self) -> float:
        """The cost of the full path."""
        return float(self.table([self.parts.space.full])[self.cost][0])

    def evaluator(self, *, seed: int, sharing: bool = True, features: bool = True) -> Evaluator:
        """A new evaluator, its counters at zero."""
        data = replace(
            self.parts.images.data, validation=Mixed(self.parts.images.data.validation, seed=seed)
        )
        kind = Evaluator if sharing else AloneEvaluator
        return kind(
            load_model(self.parts.space, self.run.weights_file, self.run),
            data.loader("validation"),
            self.parts.task,
            device=self.run.device,
            space=self.parts.space,
            feature_bytes=self.run.recipe.accuracy.feature_mb * 2**20 if features else 0,
        )

    def file(self, variant: str, seed: int) -> Path:
        """Where a variant's outcome is kept."""
        return self.work / f"{self.problem}-{variant.replace(' ', '_')}-{seed}.json"

    def kept(self, variant: str, seed: int) -> list[dict[str, Any]] | None:
        """What a variant came to when it ran before."""
        file = self.file(variant, seed)
        return json.loads(file.read_text())["rows"] if file.is_file() else None

    def keep(self, variant: str, seed: int, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Writes a variant's outcome."""
        self.file(variant, seed).write_text(json.dumps({"rows": rows}))
        return rows


def run_baseline(bench: Bench, seed: int) -> list[dict[str, Any]]:
    """Optuna's NSGA-II as it comes: every trial one path, alone, on all images."""
    known = bench.kept("baseline", seed)
    if known is not None:
        return known
    space = bench.parts.space
    evaluator = bench.evaluator(seed=seed, sharing=False, features=False)
    meter = Meter(bench.table, evaluator, bench.cost)

    def objective(trial: optuna.Trial) -> tuple[float, float]:
        choice: dict[str, Value] = {}
        for decision in space.decisions:
            if decision.requires is None or decision.requires.holds(choice):
                values = list(decision.distinct)
                choice[decision.name] = trial.suggest_categorical(decision.name, values)
        path = space.canonical(choice)
        (score,) = evaluator([path])
        meter.take([path], [score])
        if isinstance(score, InvalidValueError):
            raise score
        return score.value, float(bench.table([path])[bench.cost][0])

    optuna.logging.set_verbosity(optuna.logging.ERROR)
    sampler = optuna.samplers.NSGAIISampler(seed=seed)
    study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
    study.optimize(objective, n_trials=bench.trials, catch=(InvalidValueError,))
    return bench.keep("baseline", seed, meter.rows)


def run_variant(bench: Bench, off: str | None, seed: int, target: float) -> list[dict[str, Any]]:
    """The search until it reaches the target, with one part switched off."""
    name = f"without {off}" if off else "all parts"
    known = bench.kept(name, seed)
    if known is not None:
        return known
    evaluator = bench.evaluator(seed=seed, sharing=off != "sharing", features=off != "features")
    meter = Meter(bench.table, evaluator, bench.cost)
    space, table = bench.parts.space, bench.table
    inner: Any = evaluator
    if off != "racing":

        def cost_of(paths: Sequence[ExecutionPath]) -> np.ndarray:
            return np.asarray(table(paths)[bench.cost], dtype=float)

        racing = Racing()
        inner = Racer(evaluator, cost_of, racing=racing, seed=seed, spared=[space.full])
    sampler = "nsga2" if off == "proposals" else "model"
    settings = SearchSettings(bench.trials, seed=seed, sampler=sampler, cost=bench.cost)
    metered = Metered(inner, meter, target, bench.reference)
    with tempfile.TemporaryDirectory() as folder:
        try:
            search(space, table, metered, settings, run_dir=folder)
        except Reached:
            pass
    return bench.keep(name, seed, meter.rows)


def until(rows: Sequence[dict[str, Any]], target: float, reference: float) -> dict[str, Any]:
    """What a search had spent when it reached the target; None where it did not."""
    reached = np.flatnonzero(volumes(rows, reference) >= target)
    last = int(reached[0]) if len(reached) else len(rows) - 1
    paths = [path for row in rows[: last + 1] for path in row["paths"]]
    return {
        "reached": bool(len(reached)),
        "hypervolume": float(volumes(rows, reference)[last]),
        "trials": len(paths),
        "stopped": sum(not is_whole for _, _, is_whole, _ in paths),
        "gmacs": rows[last]["macs"] / 1e9,
        "seconds": rows[last]["seconds"],
        "cpu_seconds": rows[last]["cpu_seconds"],
    }


def compare(bench: Bench, seed: int) -> dict[str, Any]:
    """One seed: baseline, all parts, and each part switched off in turn."""
    print(f"{bench.problem}, seed {seed}: baseline", flush=True)
    baseline = run_baseline(bench.afresh(), seed)
    target = float(volumes(baseline, bench.reference)[-1])
    spent = until(baseline, target, bench.reference)
    whole = {**spent, "gmacs": baseline[-1]["macs"] / 1e9}
    whole |= {name: baseline[-1][name] for name in ("seconds", "cpu_seconds")}
    result: dict[str, Any] = {"seed": seed, "target": target, "baseline": whole, "variants": []}
    result["baseline_until_target"] = spent
    for off in (None, *PARTS):
        name = f"without {off}" if off else "all parts"
        print(f"{bench.problem}, seed {seed}: {name}", flush=True)
        rows = run_variant(bench.afresh(), off, seed, target)
        found = until(rows, target, bench.reference)
        found |= {
            "variant": name,
            "times_less_compute": whole["gmacs"] / found["gmacs"],
            "times_less_time": whole["seconds"] / found["seconds"],
            "times_less_cpu_time": whole["cpu_seconds"] / found["cpu_seconds"],
        }
        result["variants"].append(found)
        print(
            f"{name:18} {found['trials']:4} trials ({found['stopped']} stopped), "
            f"{'reached' if found['reached'] else 'NOT reached'}, "
            f"{found['times_less_compute']:.1f}x less compute, "
            f"{found['times_less_time']:.1f}x less time, "
            f"{found['times_less_cpu_time']:.1f}x less processor time",
            flush=True,
        )
    return result


def ablation(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The median over seeds of each variant."""
    rows = []
    for i, name in enumerate(variant["variant"] for variant in results[0]["variants"]):
        variants = [result["variants"][i] for result in results]
        columns: tuple[str, ...] = ("times_less_compute", "times_less_time", "times_less_cpu_time")
        columns += ("trials", "stopped")
        rows.append(
            {"variant": name, "reached": sum(v["reached"] for v in variants), "of": len(variants)}
            | {column: median([v[column] for v in variants]) for column in columns}
        )
    return rows


def open_bench(arguments: argparse.Namespace) -> Bench:
    """Weights calibrated once for all variants."""
    data = Path(arguments.data).absolute()
    files = {split: str(data / f"{split}.parquet") for split in ("train", "validation")}
    overrides: dict[str, Any] = {
        "weights": str(Path(arguments.weights).absolute()),
        "data.data_files": files,
        "search.trials": 24 if arguments.small else arguments.trials,
    }
    if arguments.small:
        overrides["data.splits.validation"] = 0.1
        overrides["calibration.images"] = 16
    if arguments.problem == "decoder":
        overrides["space.restrict"] = {name: list(v) for name, v in DECODER_ONLY.items()}
    recipe = load_recipe(arguments.recipe).with_overrides(overrides)
    work = Path(arguments.work)
    run = Run.start(work / arguments.problem, recipe, device=arguments.device)
    jobs.prepare_weights(run)
    parts = assemble(run)
    return Bench(
        run, parts, parts.table, recipe.search.cost, recipe.search.trials, work, arguments.problem
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="a folder of save_pretrained")
    parser.add_argument("--data", required=True, help="a folder with the parquet files")
    parser.add_argument("--work", required=True, help="keeps what has run")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--problem", choices=["all", "decoder"], default="all")
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--small", action="store_true", help="a smoke test: 24 trials, few images")
    arguments = parser.parse_args()
    bench = open_bench(arguments)
    results = [compare(bench, seed) for seed in arguments.seeds]
    name = f"segformer_search_{bench.problem}"
    content = {
        "trials": bench.trials,
        "cost": bench.cost,
        "images": len(bench.parts.images.data.validation),
    }
    table = ablation(results)
    for row in table:
        print(row)
    if not arguments.small:
        save(name, {**content, "ablation": table, "seeds": results})


if __name__ == "__main__":
    main()
