"""What a user deploys: one set of elastic weights that takes the best path its energy allows.

A budget picks the path before the images are seen; confidence picks the exit of each image while
they run.
"""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from paretopath.deploy.exits import (
    EarlyExit,
    choose_threshold,
    leave_early,
    steps_with_exits,
    sweep,
)
from paretopath.elastic import ElasticModel
from paretopath.elastic.own import PathTensors
from paretopath.errors import InvalidValueError
from paretopath.front import CostName, Point, known_cost
from paretopath.paths import ExecutionPath, Value
from paretopath.run import Run, open_deployable
from paretopath.tasks.task import Task


class DynamicModel:
    """Elastic weights, the front, and the policy that picks from it.

    Args:
        model: elastic weights, moved to where it shall run by the caller; put into evaluation mode.
        points: the paths to pick from, with their costs and accuracies under these weights.
        task: says how sure the model is of an image.
        statistics: of the paths that have their own; the others run with the model's.
    """

    def __init__(
        self,
        model: ElasticModel,
        points: Sequence[Point],
        *,
        task: Task,
        statistics: Iterable[PathTensors] = (),
    ) -> None:
        if not points:
            raise InvalidValueError("a dynamic model needs at least one path to pick from")
        self.model = model.eval()
        self.task = task
        self.points = tuple(sorted(points, key=lambda point: known_cost(point, "energy_mj")))
        self._paths = {p.id: model.space.canonical(p.path) for p in self.points}
        device = next(model.parameters()).device
        model.own = {found.path: found.to(device) for found in statistics}

    @classmethod
    def load(cls, run_dir: Path | str, *, device: torch.device | str = "cpu") -> Self:
        """The dynamic model of a run: retrained in shared mode if that was done, else as searched.

        Raises:
            RunDirectoryError: the directory holds no front or no weights.
        """
        found = open_deployable(Run.open(run_dir))
        model = found.model.to(device)
        return cls(model, found.points, task=found.task, statistics=found.statistics)

    @property
    def path(self) -> ExecutionPath:
        """The active path."""
        return self.model.path

    @property
    def exits(self) -> list[str]:
        """The names of the exits, first to last; :meth:`classify_early` gives indices into this
        list.
        """
        return [unit.name for unit in self.model.chain if unit.is_exit]

    def choose(self, *, energy_mj: float | None = None, latency_ms: float | None = None) -> Point:
        """The most accurate path whose cost for one image keeps to the budget; the cheaper one of
        equals.

        Args:
            energy_mj: millijoules an image, or None for no bound.
            latency_ms: milliseconds an image, or None for no bound.

        Raises:
            InvalidValueError: no path is that cheap.
        """
        budget: dict[CostName, float | None] = {"energy_mj": energy_mj, "latency_ms": latency_ms}
        bounds = {name: bound for name, bound in budget.items() if bound is not None}
        fitting = [
            p for p in self.points if all(known_cost(p, n) <= bound for n, bound in bounds.items())
        ]
        if not fitting:
            wanted = ", ".join(f"{name}={bound:g}" for name, bound in bounds.items())
            least = ", ".join(
                f"{name}={min(known_cost(p, name) for p in self.points):.4g}" for name in bounds
            )
            raise InvalidValueError(
                f"no path keeps to {wanted}; the least that any needs is {least}"
            )
        return max(
            fitting, key=lambda point: (point.best_accuracy, -known_cost(point, "energy_mj"))
        )

    @torch.inference_mode()
    def __call__(
        self, images: Tensor, *, energy_mj: float | None = None, latency_ms: float | None = None
    ) -> Any:
        """The output of the best path that fits the budget, for images (B, C, Y, X).

        Switching sets which views of the weights are used; nothing is copied.
        """
        point = self.choose(energy_mj=energy_mj, latency_ms=latency_ms)
        path = self._paths[point.id]
        if self.model.path != path:
            self.model.activate(path)
        return self.model(images)

    @torch.inference_mode()
    def classify_early(
        self,
        images: Tensor,
        *,
        threshold: float,
        path: Mapping[str, Value] | None = None,
        exits: Sequence[str] | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Classifies each image at the first exit that is sure of it; the batch shrinks as images
        leave.

        Args:
            images: (B, C, Y, X).
            threshold: an image leaves where its highest class probability reaches this, in (0, 1].
            path: which blocks and widths to run; the full path by default. Its own exit is the last
                resort.
            exits: names of the exits to ask, a subset of :attr:`exits`; all of them by default.

        Returns:
            logits (B, num_classes) and the index into :attr:`exits` at which each image left (B,),
            int64.
        """
        if not 0.0 < threshold <= 1.0:
            raise InvalidValueError(f"a threshold must lie in (0, 1], but got {threshold}")
        steps = steps_with_exits(self.model, path or {}, exits)
        logits, taken = leave_early(
            steps, images, confidence=self.task.confidence, threshold=threshold
        )
        number = {name: i for i, name in enumerate(self.exits)}
        asked = [number[step.unit.name] for step in steps if step.unit.is_exit]
        return logits, torch.tensor(asked, device=taken.device)[taken]

    @torch.inference_mode()
    def sweep_thresholds(
        self,
        batches: Iterable[tuple[Tensor, Tensor]],
        thresholds: Sequence[float],
        *,
        exits: Sequence[str] | None = None,
    ) -> list[EarlyExit]:
        """What each threshold would give on labelled batches, from one pass through all exits.

        Args:
            batches: (images, labels) pairs: validation data, never the data to report on.
            thresholds: in (0, 1].
            exits: see :meth:`classify_early`.
        """
        device = next(self.model.parameters()).device
        moved = ((images.to(device), labels.to(device)) for images, labels in batches)
        steps = steps_with_exits(self.model, {}, exits)
        return sweep(steps, moved, thresholds, confidence=self.task.confidence)


__all__ = ["DynamicModel", "EarlyExit", "choose_threshold"]
