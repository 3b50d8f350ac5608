"""Energy saved on a SegFormer: by pruning alone, compensated, rewritten, retrained.

    python benchmarks/segformer_fronts.py --weights FOLDER --data FOLDER --work DIR
        [--trials 300] [--epochs 30] [--scratch-epochs 80] [--steps search retrain scratch measure]
        [--ways prune compensate rewrite repair] [--result segformer_fronts]

Six ways from one trained model, and one without it, each against the full path as published:

- prune: blocks, heads, Mix-FFNs and decoder channels by magnitude, nothing re-solved, the decoder
  as published (the way of Sreedhar et al., arXiv 2212.02687);
- compensate: the same decisions, channels ordered and layers re-solved by least squares;
- rewrite: the decoder's form is a decision too; rewriting alone is reported by itself;
- repair: the same, each path re-solved in sequence before it is scored;
- retrain shared, retrain separate: a path of the last one, trained further; the full path is
  trained as long, as a control;
- scratch: narrower models, trained from nothing.

FOLDER of weights: as ``save_pretrained`` leaves it. FOLDER of data: train.parquet and
validation.parquet with the columns image and annotation. Paths are chosen and reported on the same
validation images: there are no others. DIR keeps what has run; it is not run again. The figure
needs matplotlib.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from environment import RESULTS, save

from paretopath import jobs
from paretopath.front import Point, Retrained, select
from paretopath.jobs import RetrainJob
from paretopath.paths import ExecutionPath
from paretopath.recipe import load_recipe
from paretopath.run import Run, assemble, build_space, load_model
from paretopath.showing.measure import measure_paths

RECIPE = Path(__file__).parents[1] / "recipes" / "segformer_camvid.yaml"
AS_PUBLISHED = {"decoder.form": ["as_published"]}
UNREPAIRED = {"calibration.repair": False}
UNSOLVED = {"calibration.order": "magnitude", "calibration.compensate": False, **UNREPAIRED}
WAYS: Mapping[str, Mapping[str, Any]] = {
    "prune": {"space.restrict": AS_PUBLISHED, **UNSOLVED},
    "compensate": {"space.restrict": AS_PUBLISHED, **UNREPAIRED},
    "rewrite": UNREPAIRED,
    "repair": {},
}
REWRITTEN = ("merged", "gathered")
ALLOWED_LOSSES = (0.0005, 0.014)  # of mIoU: as good as none, and the paper's
RETRAINED_SHARES = (0.3,)  # of the full path's energy: the best path under each is retrained
SCRATCH_WIDTHS = {"half": (16, 32, 80, 128, 128), "quarter": (8, 16, 40, 64, 64)}
FIGURE = RESULTS.parents[1] / "docs" / "segformer_fronts.svg"


def start(
    arguments: argparse.Namespace,
    name: str,
    overrides: Mapping[str, Any],
    *,
    model: Mapping[str, Any] | None = None,
) -> Run:
    """A run of the recipe in the work directory; ``model``: fields of its ``SegformerConfig``."""
    data = Path(arguments.data).absolute()
    files = {split: str(data / f"{split}.parquet") for split in ("train", "validation")}
    recipe = load_recipe(arguments.recipe)
    options = {**recipe.space.options, **({"arguments": dict(model)} if model else {})}
    changed = {"data.data_files": files, "search.trials": arguments.trials, **overrides}
    recipe = recipe.with_overrides({"space.options": options, "tracking.mode": "disabled"})
    return Run.start(Path(arguments.work) / name, recipe.with_overrides(changed), device="cpu")


def searched(arguments: argparse.Namespace, way: str) -> Run:
    """The search of one way."""
    weights = str(Path(arguments.weights).absolute())
    overrides: dict[str, Any] = {"weights": weights, **WAYS[way]}
    if way in ("rewrite", "repair"):
        overrides["search.paths"] = [{"decoder.form": form} for form in REWRITTEN]
    run = start(arguments, way, overrides)
    if not run.front_file.is_file() or len(run.trials(build_space(run.recipe))) < arguments.trials:
        print(f"{way}: calibration", flush=True)
        jobs.prepare_weights(run)
        jobs.search_run(run, on_progress=lambda now: print(way, now.finished, flush=True))
    return run


def retrained(run: Run, arguments: argparse.Namespace) -> None:
    """Retrains the best path under each share of energy in both modes; the full one as control."""
    settings = {"retrain.epochs": arguments.epochs, "retrain.warmup_epochs": 1.0}
    run = Run(run.directory, run.recipe.with_overrides(settings), device="cpu")
    front = run.front()
    space = build_space(run.recipe)
    paths = []
    for share in RETRAINED_SHARES:
        (point,) = select(front, f"budget={100 * share:g}%")
        paths.append(space.canonical(point.path))
    full = space.full
    planned = [RetrainJob(run.directory, "shared", tuple(dict.fromkeys(paths)))]
    planned += [RetrainJob(run.directory, "separate", (p,)) for p in dict.fromkeys([*paths, full])]
    for job in planned:
        results = jobs.retrain(run, job, on_epoch=lambda e: print(e.number, e.loss, flush=True))
        jobs.collect(run, job.mode, results)
        for result in results:
            print(job.name, result.path.id, result.validation, flush=True)


def scratch(arguments: argparse.Namespace, name: str) -> dict[str, Any]:
    """A narrower model trained from nothing, as published and rewritten."""
    *hidden, decoder = SCRATCH_WIDTHS[name]
    own = {"hidden_sizes": hidden, "decoder_hidden_size": decoder}
    overrides = {
        "weights": None,
        **UNREPAIRED,
        "train.epochs": arguments.scratch_epochs,
        "train.warmup_epochs": min(3.0, arguments.scratch_epochs),
    }
    run = start(arguments, f"scratch-{name}", overrides, model=own)
    jobs.prepare_weights(run, on_epoch=lambda e: print(name, e.number, e.loss, flush=True))
    parts = assemble(run)
    forms = ("as_published", *REWRITTEN)
    paths = [parts.space.canonical({"decoder.form": form}) for form in forms]
    model = load_model(parts.space, run.weights_file, run)
    scores = parts.images.evaluator(model, "validation")(paths)
    costs = parts.table(paths)
    return {
        form: {"accuracy": s.value, "accuracy_error": s.error, **costs.row(i)}  # type: ignore[union-attr]
        for i, (form, s) in enumerate(zip(forms, scores, strict=True))
    }


def plain(point: Point) -> dict[str, Any]:
    """What the result keeps of a point."""
    names = ("id", "accuracy", "accuracy_error", "energy_mj", "macs", "latency_ms", "params")
    return {name: getattr(point, name) for name in names}


def with_accuracy(point: Point, found: Retrained) -> dict[str, Any]:
    """The same after retraining."""
    return {**plain(point), "accuracy": found.accuracy, "accuracy_error": found.error}


def most_saved(
    points: Sequence[Mapping[str, Any]], full: Mapping[str, Any], loss: float
) -> dict[str, Any] | None:
    """The cheapest point that loses no more; shares saved of the full path's costs."""
    fitting = [point for point in points if point["accuracy"] >= full["accuracy"] - loss]
    if not fitting:
        return None
    best = min(fitting, key=lambda point: point["energy_mj"])
    saved = {
        f"{name}_saved": 1 - best[name] / full[name] for name in ("energy_mj", "macs", "latency_ms")
    }
    return {**best, "loss": full["accuracy"] - best["accuracy"], **saved}


def measured(run: Run, paths: Sequence[ExecutionPath], rounds: int) -> list[dict[str, float]]:
    """CPU latency of paths, at one image."""
    model = load_model(build_space(run.recipe), run.weights_file, run)
    found = measure_paths(model, paths, threads=1, rounds=rounds)
    return [{"latency_ms": m.latency_ms, "spread_ms": m.spread_ms} for m in found]


def gather(arguments: argparse.Namespace, runs: Mapping[str, Run]) -> dict[str, Any]:
    """All fronts, and what each saves."""
    last = runs[next(way for way in ("rewrite", *runs) if way in runs)]
    front = last.front()
    full = plain(front.full)
    series: dict[str, list[dict[str, Any]]] = {
        way: [plain(point) for point in run.front().points] for way, run in runs.items()
    }
    space = build_space(last.recipe)
    rewritten = {space.canonical({"decoder.form": form}): form for form in REWRITTEN}
    series["rewriting alone"] = [
        {"id": rewritten[t.path], "accuracy": t.accuracy, "accuracy_error": t.accuracy_error}
        | {name: float(t.costs[name]) for name in ("energy_mj", "macs", "latency_ms")}
        for t in last.trials(space)
        if t.path in rewritten
    ]
    everyone = {point.id: point for point in (*front.points, front.full)}.values()
    for mode in ("shared", "separate"):
        series[f"retrain {mode}"] = [
            with_accuracy(point, point.retrained[mode])
            for point in everyone
            if mode in point.retrained
        ]
    saved = {
        f"{100 * loss:g} points": {
            way: most_saved(points, full, loss) for way, points in series.items()
        }
        for loss in ALLOWED_LOSSES
    }
    return {"full": full, "series": series, "most_saved": saved}


def draw(result: Mapping[str, Any]) -> None:
    """The fronts as one figure."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    full = result["full"]
    looks = {
        "prune": ("#bbbbbb", "o-", "pruned by magnitude (the paper's way)"),
        "compensate": ("#4477aa", "o-", "compensated"),
        "rewrite": ("#228833", "o-", "rewritten and compensated"),
        "repair": ("#66ccee", "o-", "rewritten and repaired"),
        "retrain separate": ("#ee6677", "s", "retrained separately"),
        "retrain shared": ("#aa3377", "D", "retrained jointly"),
        "scratch": ("#ccbb44", "^", "narrower, trained from scratch"),
    }
    figure, axes = plt.subplots(figsize=(7.5, 4.6))
    for name, (colour, style, label) in looks.items():
        points = sorted(result["series"].get(name, []), key=lambda point: point["energy_mj"])
        if points:
            x = [100 * point["energy_mj"] / full["energy_mj"] for point in points]
            y = [100 * point["accuracy"] for point in points]
            axes.plot(x, y, style, color=colour, label=label, markersize=4, linewidth=1)
    axes.plot([100], [100 * full["accuracy"]], "k*", markersize=11, label="as published")
    axes.axhline(100 * (full["accuracy"] - 0.014), color="black", linewidth=0.6, linestyle=":")
    axes.set_xlabel("energy on magnet-16nm, % of the model as published")
    axes.set_ylabel("mIoU on validation, %")
    floor = min(p["accuracy"] for p in result["series"]["rewrite"] if p["accuracy"] > 0.1)
    axes.set_ylim(100 * min(floor, full["accuracy"] - 0.12), 100 * full["accuracy"] + 6)
    axes.set_xlim(0, 103)
    axes.legend(loc="lower right", fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    plt.rcParams["svg.hashsalt"] = "paretopath"
    figure.savefig(FIGURE, metadata={"Date": None})


def main() -> None:
    """Runs the steps that are missing, writes and prints the result."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", required=True, help="a folder of save_pretrained")
    parser.add_argument("--data", required=True, help="a folder with the parquet files")
    parser.add_argument("--work", required=True, help="keeps what has run")
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--epochs", type=int, default=30, help="of retraining")
    parser.add_argument("--scratch-epochs", type=int, default=80)
    parser.add_argument("--rounds", type=int, default=20, help="of measuring latency")
    steps = ("search", "retrain", "scratch", "measure")
    parser.add_argument("--steps", nargs="+", choices=steps, default=steps)
    parser.add_argument("--ways", nargs="+", choices=tuple(WAYS), default=tuple(WAYS))
    parser.add_argument("--result", default="segformer_fronts", help="the result file's name")
    arguments = parser.parse_args()
    if "retrain" in arguments.steps and "rewrite" not in arguments.ways:
        parser.error("--steps retrain: paths of the way rewrite are retrained; name it in --ways")
    runs = {way: searched(arguments, way) for way in arguments.ways}
    if "retrain" in arguments.steps:
        retrained(runs["rewrite"], arguments)
    result = gather(arguments, runs)
    if "scratch" in arguments.steps:
        models = {name: scratch(arguments, name) for name in SCRATCH_WIDTHS}
        result["scratch"] = models
        result["series"]["scratch"] = [form for model in models.values() for form in model.values()]
    if "measure" in arguments.steps:
        result["measured_ms"] = latencies(arguments, runs, result)
    result["images"] = len(assemble(next(iter(runs.values()))).images.data.validation)
    result["split"] = (
        "validation (chosen and reported on it: CamVid's published split has no other)"
    )
    if arguments.result == "segformer_fronts":
        draw(result)
    save(arguments.result, result)
    print(json.dumps({name: result[name] for name in ("full", "most_saved")}, indent=1))


def latencies(
    arguments: argparse.Namespace, runs: Mapping[str, Run], result: Mapping[str, Any]
) -> dict[str, Any]:
    """Measured CPU latency of the full path, the rewritten one, and the cheapest within the loss of
    each way.
    """
    run = next(iter(runs.values()))
    space = build_space(run.recipe)
    best = result["most_saved"][f"{100 * ALLOWED_LOSSES[-1]:g} points"]
    paths = {
        "as published": space.full,
        **{form: space.canonical({"decoder.form": form}) for form in REWRITTEN},
    }
    for way in (*runs, "retrain shared", "retrain separate"):
        if best.get(way):
            source = runs.get(way, run).front()
            paths[way] = space.canonical(source[best[way]["id"]].path)
    found = measured(run, list(paths.values()), arguments.rounds)
    baseline = found[0]["latency_ms"]
    return {
        name: {**one, "saved": 1 - one["latency_ms"] / baseline}
        for name, one in zip(paths, found, strict=True)
    }


if __name__ == "__main__":
    main()
