"""Measuring again: accuracies from the weights on disk, latencies on a device, costs by another
model.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from torch import nn

from paretopath.cost import CostModel, CostTable
from paretopath.cost import create as create_cost_model
from paretopath.elastic import ElasticModel
from paretopath.elastic.own import OwnFolder
from paretopath.errors import InvalidValueError, nearest
from paretopath.front import Point, pareto_front, select
from paretopath.jobs.epochs import SCORED, finite
from paretopath.jobs.retraining.fitting import closed_form_scoring
from paretopath.paths import ExecutionPath
from paretopath.progress import PhaseListener, unheard
from paretopath.run import Run, Scoring, build_scoring, build_space, build_table, load_model
from paretopath.showing.measure import (
    Comparison,
    compare,
    measure_paths,
    predict,
    rank_correlation,
    save_measurements,
)
from paretopath.weights.files import load_into

RESCORED = ("energy_mj", "latency_ms")


def evaluate_run(
    run: Run, path_ids: Sequence[str] = (), *, on_phase: PhaseListener = unheard
) -> list[dict[str, Any]]:
    """Measures paths of the front anew from the weights on disk, on validation and test.

    Args:
        run: with a front.
        path_ids: which paths; the whole front and the full path by default.
        on_phase: hears of opening and reading images.

    Returns:
        For each path and kind of weights that exist: ``id``, ``weights`` (``search``,
        ``closed_form``, ``shared`` or ``separate``), ``validation`` and ``test`` scores.
    """
    front = run.front()
    points = [front[i] for i in path_ids] if path_ids else list(front.everyone.values())
    space = build_space(run.recipe)
    scoring = build_scoring(run, space, on_phase=on_phase)
    searched = load_model(space, run.weights_file, run)
    rows = _score_elastic(scoring, searched, "search", points, run.own())
    solved = [p for p in points if "closed_form" in p.retrained]
    if solved:
        more = closed_form_scoring(scoring, run.recipe.retrain)
        rows += _score_elastic(more, searched, "closed_form", solved, run.own("closed_form"))
    shared = [p for p in points if "shared" in p.retrained]
    if shared:
        weights = run.retrained_dir("shared") / "weights.safetensors"
        model = load_model(space, weights, run)
        rows += _score_elastic(scoring, model, "shared", shared, run.own("shared"))
    for point in points:
        if "separate" in point.retrained:
            module = load_separate(run, searched, point.path)
            row: dict[str, Any] = {"id": point.id, "weights": "separate"}
            rows.append(row | {split: scoring.score(module, split) for split in SCORED})
    return rows


def measure_run(
    run: Run,
    *,
    selection: str = "all",
    batch_size: int = 1,
    threads: int | None = None,
    rounds: int = 10,
    on_turn: Callable[[int, int], None] | None = None,
) -> Comparison:
    """Measures the latency of paths of the front on the run's device, beside three predictions.

    The predictions: the device model (units measured in place, then added), the recipe's cost
        model, and MACs.

    Args:
        run: with a front; it gets ``measured.json``. It may lack weights, on which latencies don't
            depend.
        selection: which paths beside the full one, see :func:`paretopath.front.select`.
        batch_size: images at once; latencies are for one image.
        threads: of the CPU; torch's own number by default.
        rounds: how often each path's turn comes.
        on_turn: told (turns done, turns in all).
    """
    front = run.front()
    points = {point.id: point for point in (*select(front, selection), front.full)}
    paths = [point.path for point in points.values()]
    space = build_space(run.recipe)
    device = create_cost_model(
        "device",
        device=str(run.device),
        batch_size=batch_size,
        threads=threads,
        cache_dir=run.directory / "measured",
    )
    models: dict[str, CostModel] = {
        "device": device,
        run.recipe.hardware.model: build_table(run, space).cost_model,
    }
    predictions = predict(space, paths, models)
    measured = measure_paths(
        load_model(space, run.weights_file, run) if run.weights_file.is_file() else space.build(),
        paths,
        device=str(run.device),
        batch_size=batch_size,
        threads=threads,
        rounds=rounds,
        progress=on_turn,
    )
    save_measurements(run.measured_file, device.hardware, measured)
    return compare(measured, predictions, hardware=device.hardware)


@dataclass(frozen=True)
class Rescored:
    """Paths of a front priced by another cost model.

    Attributes:
        hardware: the other cost model's.
        rows: for each path its ``id``, ``energy_mj`` and ``latency_ms`` as the front has them, the
            same with the ending ``_rescored`` (None where the model knows none), and
            ``stays``: whether no other of these paths is as accurate for less by the new price.
        rank_correlations: Spearman's, of old and new prices, by cost; None for fewer than three
            paths or where the model knows none.
    """

    hardware: str
    rows: tuple[dict[str, Any], ...]
    rank_correlations: dict[str, float | None]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return asdict(self)


def rescore(
    run: Run,
    points: Sequence[Point],
    kind: str,
    *,
    on_progress: Callable[[int, int], None] | None = None,
) -> Rescored:
    """Prices points of a front with the mapper on the same hardware, or with the device.

    What they find is kept in the run directory, so that a second call is quick.

    Args:
        run: whose recipe names the hardware.
        points: of its front.
        kind: ``mapper`` or ``device``.
        on_progress: told (done, to do): layers of the mapper, unit forms of the device.

    Raises:
        InvalidValueError: another kind; or the mapper for a recipe whose hardware is a device.
    """
    hardware = run.recipe.hardware
    options: dict[str, Any] = {"cache_dir": run.directory / kind, "progress": on_progress}
    if kind == "mapper":
        if hardware.model == "device":
            raise InvalidValueError(
                "the mapper prices accelerators, but this run's hardware.model is device"
            )
        options |= {
            "preset": hardware.preset,
            "hardware": hardware.hardware,
            "mapping": hardware.mapping,
        }
    elif kind == "device":
        options |= {"device": str(run.device)} | hardware.device_options
    else:
        raise InvalidValueError(
            f"paths can be rescored by mapper or device, but got {kind!r}; "
            f"{nearest(kind, ['mapper', 'device'])}"
        )
    model = create_cost_model(kind, **{k: v for k, v in options.items() if v is not None})
    costs = CostTable(build_space(run.recipe), model)([point.path for point in points])
    before = {name: [getattr(point, name) for point in points] for name in RESCORED}
    after = {name: [_known(value) for value in costs[name]] for name in RESCORED}
    # by what the search priced, or by latency where that is all a device can tell
    priced = [after[name] for name in (run.recipe.search.cost, "latency_ms") if name in after]
    known = [values for values in priced if None not in values]
    stays = pareto_front([point.accuracy for point in points], np.array(known[0], dtype=float))
    rows = tuple(
        {"id": point.id, "stays": bool(stays[i])}
        | {name: before[name][i] for name in RESCORED}
        | {f"{name}_rescored": after[name][i] for name in RESCORED}
        for i, point in enumerate(points)
    )
    correlations = {name: _rank_correlation(before[name], after[name]) for name in RESCORED}
    return Rescored(model.hardware, rows, correlations)


def _rank_correlation(
    before: Sequence[float | None], after: Sequence[float | None]
) -> float | None:
    known = [(b, a) for b, a in zip(before, after, strict=True) if a is not None and b is not None]
    if len(known) < max(3, len(before)):
        return None
    pairs = np.array(known)
    return rank_correlation(pairs[:, 0], pairs[:, 1])


def _known(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def load_separate(run: Run, searched: ElasticModel, path: ExecutionPath) -> nn.Module:
    """The plain model that separate retraining left of a path, on the run's device.

    Args:
        run: where it is.
        searched: the elastic model with the weights that were searched, which it was extracted
            from: calibration may have given its layers biases.
        path: canonical.
    """
    weights = run.retrained_dir("separate", path.id) / "weights.safetensors"
    module = searched.extract(path)
    load_into(module, weights)
    return module.to(run.device).eval()


def _score_elastic(
    scoring: Scoring,
    model: ElasticModel,
    weights: str,
    points: Sequence[Point],
    kept: OwnFolder,
) -> list[dict[str, Any]]:
    paths = [point.path for point in points]
    shared = weights == "shared"
    validation, test = (
        scoring.evaluator(model, split, shared=shared, kept=kept)(paths) for split in SCORED
    )
    return [
        {"id": point.id, "weights": weights, "validation": finite(v), "test": finite(t)}
        for point, v, t in zip(points, validation, test, strict=True)
    ]
