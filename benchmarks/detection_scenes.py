"""What execution paths of a small DINO are worth on scenes of digits, by the recipe's own commands.

    paretopath search recipes/dino_digit_scenes.yaml --run-dir RUN
    paretopath retrain RUN --mode shared
    paretopath retrain RUN --mode separate
    paretopath retrain RUN --mode closed_form
    python benchmarks/detection_scenes.py RUN

Reads a finished run, its retrainings as far as there are some, and prints with standard errors: the
full model; the exits behind each decoder layer and fewer queries, before retraining and after it;
the front over layers and queries alone, every path of it evaluated; and the energy saved by the
cheapest path that loses at most 3.3 points of mAP on validation: as cut, re-solved (repair), and
retrained. Paths are chosen on validation, test is reported beside it. As-cut accuracies are of the
front's paths, which the search chose by accuracies after repair; a search for as-cut paths might
find better ones. What the commands measured is taken from the run, the rest is measured here.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from environment import save

from paretopath.elastic import ElasticModel
from paretopath.elastic.compensation import compensate, compensation_of
from paretopath.elastic.exits import exit_paths
from paretopath.evaluation.evaluator import Evaluator
from paretopath.front import Point
from paretopath.paths import ExecutionPath
from paretopath.run import Run, assemble, load_model
from paretopath.tasks.task import Score

LOST = 0.033  # mAP: the points of mIoU that the first study of these paths gave up

Row = dict[str, Any]
Evaluators = Callable[[Any], Any]
"""What scores paths on a split."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--name", default="detection_scenes", help="of the result's file")
    arguments = parser.parse_args()
    run = Run.open(arguments.run, device="cpu")
    parts = assemble(run)
    front = run.front()
    model = load_model(parts.space, run.weights_file, run)
    ways: dict[str, Evaluators] = {"searched": partial(parts.images.evaluator, model)}
    shared = run.retrained_dir("shared") / "weights.safetensors"
    if shared.is_file():
        retrained = load_model(parts.space, shared, run)
        ways["shared"] = partial(parts.images.evaluator, retrained, shared=True)
    known = {point.id: point for point in (*front.points, front.full)}
    priced = parts.table([point.path for point in known.values()])["energy_mj"].tolist()
    energy = dict(zip(known, priced, strict=True))
    evaluated = measured(known.values())
    content = {
        "recipe": run.recipe.name,
        "images": {name: len(parts.images.data.split(name)) for name in ("validation", "test")},
        "full": {"validation": [front.full.accuracy, front.full.accuracy_error]}
        | {"test": [front.full.test_accuracy, front.full.test_error]},
        "trials": sum(trial.state == "complete" for trial in run.trials(parts.space)),
        "front": [row(point, energy[point.id]) for point in front.points],
        "retrained": [one for one in evaluated if one["weights"] != "search"],
        "exits": {name: exits(parts, way) for name, way in ways.items()},
        "queries": {name: queries(parts, way) for name, way in ways.items()},
        "layers_and_queries": {name: layers_and_queries(parts, way) for name, way in ways.items()},
        "saved": saved(front.full, energy, evaluated, as_cut(parts, model, front.points)),
    }
    save(arguments.name, content)
    print(json.dumps(content["saved"], indent=1))
    for kind in ("exits", "queries"):
        print(kind, json.dumps(content[kind], indent=1))


def scores(parts: Any, evaluator: Evaluators, paths: Sequence[ExecutionPath]) -> list[Row]:
    """Both splits of paths, scored by the evaluator of each."""
    found = {split: list(evaluator(split)(paths)) for split in ("validation", "test")}
    costs = parts.table(paths)
    return [
        {"path": dict(path), "energy_mj": float(costs["energy_mj"][i])}
        | {split: pair(found[split][i]) for split in found}
        for i, path in enumerate(paths)
    ]


def exits(parts: Any, evaluator: Evaluators) -> list[Row]:
    """The fullest path to each decoder layer: one pass, its prefix shared."""
    return scores(parts, evaluator, exit_paths(parts.space.build()))


def queries(parts: Any, evaluator: Evaluators) -> list[Row]:
    """The full path with fewer queries."""
    kept = parts.space["queries"].values
    return scores(parts, evaluator, [parts.space.canonical({"queries": number}) for number in kept])


def layers_and_queries(parts: Any, evaluator: Evaluators) -> list[Row]:
    """Every path that differs from the full one in its last decoder layer and queries alone; those
    on the front are marked.
    """
    paths = [
        parts.space.canonical({"exit": layer, "queries": number})
        for layer in parts.space["exit"].values
        for number in parts.space["queries"].values
    ]
    rows = scores(parts, evaluator, paths)
    for one in rows:
        one["on_front"] = not any(
            other["energy_mj"] <= one["energy_mj"] and better(other, one) for other in rows
        )
    return rows


def better(other: Row, one: Row) -> bool:
    return other["validation"][0] > one["validation"][0] or (
        other["validation"][0] == one["validation"][0] and other["energy_mj"] < one["energy_mj"]
    )


def as_cut(parts: Any, model: ElasticModel, points: Sequence[Point]) -> list[Row]:
    """Paths without anything re-solved: narrower layers keep their first channels' weights."""
    for layer in list(model.modules()):
        if compensation_of(layer) is not None:
            compensate(layer, None)

    def evaluator(split: Any) -> Evaluator:
        return Evaluator(model, parts.images.data.loader(split), parts.task)

    rows = scores(parts, evaluator, [point.path for point in points])
    return [{"id": point.id} | one for point, one in zip(points, rows, strict=True)]


def measured(points: Iterable[Point]) -> list[Row]:
    """What the search and retrainings measured of each path, by weights."""
    rows = []
    for point in points:
        ways = {"search": searched(point)} | {
            mode: {
                "validation": [one.accuracy, one.error],
                "test": [one.test_accuracy, one.test_error],
            }
            for mode, one in point.retrained.items()
        }
        rows += [{"id": point.id, "weights": name} | way for name, way in ways.items()]
    return rows


def searched(point: Point) -> Row:
    """A path's accuracies as its search measured them."""
    return {
        "validation": [point.accuracy, point.accuracy_error],
        "test": [point.test_accuracy, point.test_error],
    }


def saved(
    full: Point, energy: Mapping[str, float], evaluated: Sequence[Row], cut: list[Row]
) -> Row:
    """The cheapest path within :data:`LOST` of the searched full model on validation, by weights;
    and, of retrained ones, within that of the full path retrained alike.
    """
    found = {"as_cut": cheapest(cut, full.accuracy, energy)}
    for weights in ("search", "closed_form", "shared", "separate"):
        rows = [one for one in evaluated if one["weights"] == weights]
        if not rows:
            continue
        found[weights] = cheapest(rows, full.accuracy, energy)
        alike = [one for one in rows if one["id"] == full.id]
        if alike and weights != "search":
            found[f"{weights}, full path too"] = cheapest(rows, alike[0]["validation"][0], energy)
    return found


def cheapest(rows: list[Row], accuracy: float, energy: Mapping[str, float]) -> Row | None:
    """The cheapest row that is accurate enough on validation, with the share of energy saved.

    Args:
        rows: paths with their ids and accuracies.
        accuracy: of the full path.
        energy: by id; the full path's is the most.
    """
    enough = [one for one in rows if one["validation"][0] >= accuracy - LOST]
    if not enough:
        return None
    best = min(enough, key=lambda one: energy[one["id"]])
    spent = energy[best["id"]]
    return best | {"energy_mj": spent, "saved": 1 - spent / max(energy.values())}


def row(point: Point, energy_mj: float) -> Row:
    return {"id": point.id, "path": dict(point.path), "energy_mj": energy_mj} | searched(point)


def pair(score: Any) -> list[float]:
    """An accuracy and its standard error; nought where outputs were not finite."""
    return [score.value, score.error] if isinstance(score, Score) else [0.0, 0.0]


if __name__ == "__main__":
    main()
