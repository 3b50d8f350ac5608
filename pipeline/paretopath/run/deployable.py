"""What a run has to deploy."""

from dataclasses import dataclass

from paretopath.elastic import ElasticModel
from paretopath.elastic.own import PathTensors
from paretopath.front import Point
from paretopath.run.parts import build_space, load_model
from paretopath.run.run import Run
from paretopath.tasks.registry import create_task
from paretopath.tasks.task import Task


@dataclass(frozen=True)
class Deployable:
    """What a dynamic model is made of.

    Attributes:
        model: elastic weights.
        task: that it does.
        points: what was measured with them.
        statistics: batch-norm statistics of the paths that have their own.
    """

    model: ElasticModel
    task: Task
    points: tuple[Point, ...]
    statistics: tuple[PathTensors, ...]


def open_deployable(run: Run) -> Deployable:
    """Elastic weights and the points that they were measured with.

    The weights that shared retraining left, with the paths that it trained; else those of the
    search, with the whole front.
    """
    front = run.front()
    space = build_space(run.recipe)
    retrained_weights = run.retrained_dir("shared") / "weights.safetensors"
    everyone = {point.id: point for point in (*front.points, front.full)}
    retrained = [point for point in everyone.values() if "shared" in point.retrained]
    shared = retrained_weights.is_file() and bool(retrained)
    points = retrained if shared else list(everyone.values())
    kept = run.statistics(shared=shared)
    found = (kept[space.canonical(point.path)] for point in points)
    return Deployable(
        model=load_model(space, retrained_weights if shared else run.weights_file, run),
        task=create_task(run.recipe.task, training=run.recipe.retrain),
        points=tuple(points),
        statistics=tuple(own for own in found if own is not None),
    )
