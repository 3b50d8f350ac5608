"""What a user deploys: one set of elastic weights that takes the best path its energy allows.

A budget picks the path before the images are seen; confidence picks the exit of each image while
they run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor
from torch.utils._pytree import tree_map

from paretopath.elastic import ElasticModel, State, Step, Unit
from paretopath.elastic.own import PathTensors
from paretopath.errors import InvalidValueError
from paretopath.front import CostName, Point, known_cost
from paretopath.paths import ExecutionPath, Value
from paretopath.run import Run


@dataclass(frozen=True)
class EarlyExit:
    """How a threshold did on labelled data.

    Attributes:
        threshold: images leave at the first exit whose highest class probability reaches it.
        accuracy: top-1, in [0, 1].
        mean_exit: mean position of the exit taken, 0 for the first.
        shares: share of the images that left at each exit, in order.
    """

    threshold: float
    accuracy: float
    mean_exit: float
    shares: tuple[float, ...]


class DynamicModel:
    """Elastic weights, the front, and the policy that picks from it.

    Args:
        model: elastic weights, moved to where it shall run by the caller; put into evaluation mode.
        points: the paths to pick from, with their costs and accuracies under these weights.
        statistics: of the paths that have their own; the others run with the model's.
    """

    def __init__(
        self,
        model: ElasticModel,
        points: Sequence[Point],
        *,
        statistics: Iterable[PathTensors] = (),
    ) -> None:
        if not points:
            raise InvalidValueError("a dynamic model needs at least one path to pick from")
        self.model = model.eval()
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
        run = Run.open(run_dir)
        found = run.deployable()
        return cls(found.model.to(device), found.points, statistics=found.statistics)

    @property
    def path(self) -> ExecutionPath:
        """The active path."""
        return self.model.path

    @property
    def exits(self) -> list[str]:
        """The names of the exits, first to last; :meth:`classify_early` gives indices into this
        list.
        """
        return [unit.name for unit in self._exit_units()]

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
        steps = self._early_steps(path, exits)
        number = {name: i for i, name in enumerate(self.exits)}
        waiting = torch.arange(len(images), device=images.device)
        taken = torch.empty(len(images), dtype=torch.long, device=images.device)
        logits: Tensor | None = None
        state: State = images
        for step in steps[:-1]:
            out = step(state)
            if not step.unit.is_exit:
                state = out
                continue
            logits = out.new_empty(len(images), out.shape[-1]) if logits is None else logits
            sure = out.softmax(-1).amax(-1) >= threshold
            leaving = waiting[sure]
            logits[leaving], taken[leaving] = out[sure], number[step.unit.name]
            if len(leaving) == 0:
                continue
            stay = (~sure).nonzero().flatten()
            waiting = waiting[stay]
            if len(waiting) == 0:
                return logits, taken
            state = tree_map(lambda tensor, stay=stay: tensor[stay], state)
        out = steps[-1](state)
        if logits is None:
            return out, torch.full_like(taken, number[steps[-1].unit.name])
        logits[waiting], taken[waiting] = out, number[steps[-1].unit.name]
        return logits, taken

    def _early_steps(
        self, path: Mapping[str, Value] | None, exits: Sequence[str] | None
    ) -> list[Step]:
        """The steps of a path with the exits that lie on its way put in."""
        path = self.model.space.canonical(path or {})
        main = self.model.steps(path)
        if not main[-1].unit.is_exit:
            raise InvalidValueError("leaving early needs a model with exits, but this one has none")
        asked = set(self.exits if exits is None else exits)
        running = {step.unit.name: step for step in main}
        steps = []
        for unit in self.model.chain:
            if unit.name in running:
                steps.append(running[unit.name])
            elif unit.is_exit and unit.name in asked:
                steps.append(Step(unit, ()))
            if unit is main[-1].unit:
                break
        return steps

    def _exit_units(self) -> list[Unit]:
        return [unit for unit in self.model.chain if unit.is_exit]

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
        steps = self._early_steps(None, exits)
        device = next(self.model.parameters()).device
        confidence, correct = [], []  # per batch: (n_exits, B)
        for images, labels in batches:
            state: State = images.to(device)
            outs = []
            for step in steps:
                out = step(state)
                if step.unit.is_exit:
                    outs.append(out)
                else:
                    state = out
            stacked = torch.stack(outs)  # (n_exits, B, num_classes)
            confidence.append(stacked.softmax(-1).amax(-1))
            correct.append(stacked.argmax(-1) == labels.to(device))
        sure, right = torch.cat(confidence, 1), torch.cat(correct, 1)
        return [_exit_statistics(threshold, sure, right) for threshold in thresholds]


def _exit_statistics(threshold: float, confidence: Tensor, correct: Tensor) -> EarlyExit:
    """Statistics of one threshold from (n_exits, n) confidences and correctness."""
    leaves = confidence >= threshold
    leaves[-1] = True
    first = leaves.int().argmax(0)  # the first exit that is sure
    shares = torch.bincount(first, minlength=len(leaves)).double() / leaves.shape[1]
    accuracy = correct.gather(0, first[None]).double().mean()
    return EarlyExit(
        threshold, accuracy.item(), first.double().mean().item(), tuple(shares.tolist())
    )


def choose_threshold(sweep: Sequence[EarlyExit], *, max_loss: float) -> EarlyExit:
    """The lowest threshold that loses at most ``max_loss`` of the accuracy of never leaving early.

    Args:
        sweep: from :meth:`DynamicModel.sweep_thresholds`, the threshold 1.0 among them.
        max_loss: in [0, 1].
    """
    patient = max(sweep, key=lambda result: result.threshold)
    allowed = [result for result in sweep if result.accuracy >= patient.accuracy - max_loss]
    return min(allowed, key=lambda result: result.threshold)


__all__ = ["DynamicModel", "EarlyExit", "choose_threshold"]
