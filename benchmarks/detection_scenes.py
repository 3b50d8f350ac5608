"""What execution paths of a small DINO are worth on scenes of digits, by the recipe's own commands.

    paretopath search recipes/dino_digit_scenes.yaml --run-dir RUN
    paretopath retrain RUN --mode shared
    paretopath retrain RUN --mode separate
    paretopath retrain RUN --mode closed_form
    python benchmarks/detection_scenes.py RUN

Reads a finished run (its retrainings as far as there are some) and measures on the images of its
recipe, all with standard errors: the full model; the exits behind each decoder layer and fewer
queries, before retraining and after it; the front over layers and queries alone, every path of it
evaluated; and the energy saved by the cheapest path that loses at most 3.3 points of mAP on
validation: as cut, re-solved (repair), and retrained. Paths are chosen on validation, test is
reported beside it. As-cut accuracies are of the paths that the search tried, which it chose by
accuracies after repair; a search for as-cut paths might find better ones.
"""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from environment import save

from paretopath.elastic import ElasticModel
from paretopath.elastic.compensation import compensate, compensation_of
from paretopath.elastic.exits import exit_paths
from paretopath.evaluation.evaluator import Evaluator
from paretopath.front import Point
from paretopath.jobs import evaluate_run
from paretopath.paths import ExecutionPath
from paretopath.run import Run, assemble, load_model
from paretopath.tasks.task import Score

LOST = 0.033  # mAP: the points of mIoU that the first study of these paths gave up

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default="detection_scenes", help="of the result's file")
    arguments = parser.parse_args()
    run = Run.open(arguments.run, device="cpu")
    parts = assemble(run)
    front = run.front()
    evaluated = evaluate_run(run)
    searched = load_model(parts.space, run.weights_file, run)
    models = {"searched": searched}
    shared = run.retrained_dir("shared") / "weights.safetensors"
    if shared.is_file():
        models["shared"] = load_model(parts.space, shared, run)
    known = {point.id: point.path for point in (*front.points, front.full)}
    priced = parts.table(list(known.values()))["energy_mj"].tolist()  # as of now, for all alike
    energy = dict(zip(known, priced, strict=True))
    trials = [t for t in run.trials(parts.space) if t.state == "complete"]
    cut = as_cut(parts, searched, [trial.path for trial in trials])
    content = {
        "recipe": run.recipe.name,
        "images": {name: len(parts.images.data.split(name)) for name in ("validation", "test")},
        "full": {"validation": [front.full.accuracy, front.full.accuracy_error]}
        | {"test": [front.full.test_accuracy, front.full.test_error]},
        "trials": len(trials),
        "front": [row(point, energy[point.id]) for point in front.points],
        "evaluated": [
            {"id": one["id"], "weights": one["weights"], "validation": pair(one["validation"])}
            | {"test": pair(one["test"])}
            for one in evaluated
        ],
        "exits": {name: exits(parts, model) for name, model in models.items()},
        "queries": {name: queries(parts, model) for name, model in models.items()},
        "layers_and_queries": {
            name: layers_and_queries(parts, model) for name, model in models.items()
        },
        "saved": saved(front.full, energy, evaluated, cut),
    }
    save(arguments.name, content)
    print(json.dumps(content["saved"], indent=1))
    for kind in ("exits", "queries"):
        print(kind, json.dumps(content[kind], indent=1))


def scores(parts: Any, model: ElasticModel, paths: Sequence[ExecutionPath]) -> list[Row]:
    """Both splits of paths with the model's own weights: nothing re-solved."""
    found = {}
    for split in ("validation", "test"):
        loader = parts.images.data.loader(split)
        found[split] = Evaluator(model, loader, parts.task)(paths)
    costs = parts.table(paths)
    return [
        {"path": dict(path), "energy_mj": float(costs["energy_mj"][i])}
        | {split: pair(found[split][i]) for split in found}
        for i, path in enumerate(paths)
    ]


def exits(parts: Any, model: ElasticModel) -> list[Row]:
    """The fullest path to each decoder layer: one pass, its prefix shared."""
    return scores(parts, model, exit_paths(model))


def queries(parts: Any, model: ElasticModel) -> list[Row]:
    """The full path with fewer queries."""
    kept = parts.space["queries"].values
    return scores(parts, model, [parts.space.canonical({"queries": number}) for number in kept])


def layers_and_queries(parts: Any, model: ElasticModel) -> list[Row]:
    """Every path that differs from the full one in its last decoder layer and queries alone; those
    on the front are marked.
    """
    paths = [
        parts.space.canonical({"exit": layer, "queries": number})
        for layer in parts.space["exit"].values
        for number in parts.space["queries"].values
    ]
    rows = scores(parts, model, paths)
    for one in rows:
        one["on_front"] = not any(
            other["energy_mj"] <= one["energy_mj"] and better(other, one) for other in rows
        )
    return rows


def better(other: Row, one: Row) -> bool:
    return other["validation"][0] > one["validation"][0] or (
        other["validation"][0] == one["validation"][0] and other["energy_mj"] < one["energy_mj"]
    )


def as_cut(parts: Any, model: ElasticModel, paths: Iterable[ExecutionPath]) -> list[Row]:
    """Paths without anything re-solved: narrower layers keep their first channels' weights."""
    for layer in list(model.modules()):
        if compensation_of(layer) is not None:
            compensate(layer, None)
    return scores(parts, model, list(paths))


def saved(
    full: Point, energy: Mapping[str, float], evaluated: Sequence[Row], cut: list[Row]
) -> Row:
    """The cheapest path within :data:`LOST` of the full model on validation, by weights."""
    found = {"as_cut": cheapest(cut, full.accuracy, energy[full.id])}
    for weights in ("search", "closed_form", "shared", "separate"):
        rows = [
            {"id": one["id"], "energy_mj": energy[one["id"]]}
            | {split: pair(one[split]) for split in ("validation", "test")}
            for one in evaluated
            if one["weights"] == weights and one["id"] in energy
        ]
        if rows:
            found[weights] = cheapest(rows, full.accuracy, energy[full.id])
    return found


def cheapest(rows: list[Row], accuracy: float, energy_mj: float) -> Row | None:
    """The cheapest row that is accurate enough on validation, with the share of energy saved.

    Args:
        rows: paths with their energy and accuracy.
        accuracy: of the full path.
        energy_mj: of the full path.
    """
    enough = [one for one in rows if one["validation"][0] >= accuracy - LOST]
    if not enough:
        return None
    best = min(enough, key=lambda one: float(one["energy_mj"]))
    return best | {"saved": 1 - best["energy_mj"] / energy_mj}


def row(point: Point, energy_mj: float) -> Row:
    return {
        "id": point.id,
        "path": dict(point.path),
        "energy_mj": energy_mj,
        "validation": [point.accuracy, point.accuracy_error],
        "test": [point.test_accuracy, point.test_error],
        "retrained": {mode: one.accuracy for mode, one in point.retrained.items()},
    }


def pair(score: Any) -> list[float]:
    """An accuracy and its standard error; nought where outputs were not finite."""
    return [score.value, score.error] if isinstance(score, Score) else [0.0, 0.0]


if __name__ == "__main__":
    main()
