"""What a user deploys: elastic weights that take the best path their energy allows.

A budget picks the path before the images are seen; confidence picks the exit of each image while
they run.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor

from paretopath.costs import CostName
from paretopath.deploy.chooser import Chooser, EarlyOption, Option
from paretopath.deploy.exits import at_threshold, by_policy, leave_early
from paretopath.deploy.loading import load_deployable
from paretopath.deploy.preprocessing import Preprocessing
from paretopath.deploy.thresholds import EarlyExit, sweep
from paretopath.elastic import ElasticModel, Step
from paretopath.elastic.exits import steps_with_exits
from paretopath.errors import InvalidValueError
from paretopath.front import DynamicPoint, Point
from paretopath.front.dynamic import within_loss
from paretopath.paths import ExecutionPath, Value
from paretopath.tasks.task import Task


class DynamicModel:
    """Elastic weights, the paths of a front, and what picks among them.

    Args:
        models: one for each set of weights, by its name, all of one space and on one device; put
            into evaluation mode. What their paths have for themselves is in them.
        options: the paths to pick from, each with its weights.
        task: says how sure the model is of an image.
        preprocessing: makes and checks images.
        cost: by which paths are ordered; the first that all know if None.
        policies: by which images leave paths early.
    """

    def __init__(
        self,
        models: Mapping[str, ElasticModel],
        options: Iterable[Option],
        *,
        task: Task,
        preprocessing: Preprocessing,
        cost: CostName | None = None,
        policies: Iterable[DynamicPoint] = (),
    ) -> None:
        self.models = {name: model.eval() for name, model in models.items()}
        self.task = task
        self.preprocess = preprocessing
        self._chooser = Chooser(options, cost=cost)
        self._space = next(iter(self.models.values())).space
        self._by_path = {self._space.canonical(o.point.path): o for o in self.options}
        self._model = self.models[self._model_name(self._space.full)]
        early = [EarlyOption(point) for point in policies]
        self._early_chooser = Chooser(early, cost=cost) if early else None
        self._early: dict[tuple[str, ExecutionPath, tuple[str, ...] | None], tuple[Step, ...]] = {}

    @classmethod
    def load(
        cls,
        run_dir: Path | str,
        *,
        device: torch.device | str = "cpu",
        weights: Collection[str] | None = None,
    ) -> Self:
        """The dynamic model of a run: each path with the best weights that exist for it.

        Those that were searched and those that shared retraining left are both kept in memory
        where some budget needs either; what is equal in both is kept once (see
        :attr:`memory_bytes`). What was re-solved for single paths lies beside them
        (:meth:`own_bytes`), and is switched to by reference.

        Args:
            run_dir: its directory: recipe, front, weights and statistics are read, nothing else.
            device: where it shall run.
            weights: which may be taken, of ``searched``, ``closed_form`` and ``shared``; the best
                of all that exist if None.

        Raises:
            RunDirectoryError: the directory holds no front or no weights.
        """
        found = load_deployable(run_dir, device=device, weights=weights)
        return cls(
            found.models,
            found.options,
            task=found.task,
            preprocessing=found.preprocessing,
            cost=found.cost,
            policies=found.policies,
        )

    @property
    def model(self) -> ElasticModel:
        """The elastic model that ran last, its path active."""
        return self._model

    @property
    def path(self) -> ExecutionPath:
        """The active path."""
        return self.model.path

    @property
    def options(self) -> tuple[Option, ...]:
        """The paths to pick from with their weights, by rising cost."""
        return self._chooser.options

    @property
    def points(self) -> tuple[Point, ...]:
        """The paths to pick from with everything measured about them, by rising cost."""
        return tuple(option.point for option in self.options)

    @property
    def policies(self) -> tuple[DynamicPoint, ...]:
        """The paths that images leave early with their policies, by rising expected cost."""
        chooser = self._early_chooser
        return tuple(option.point for option in chooser.options) if chooser else ()

    @property
    def exits(self) -> list[str]:
        """The names of the exits, first to last; :meth:`classify_early` gives indices into this
        list.
        """
        return [unit.name for unit in self.model.chain if unit.is_exit]

    @property
    def memory_bytes(self) -> int:
        """What its weights take, those of all sets and of single paths together."""
        shared = [
            tensor
            for model in self.models.values()
            for tensor in (*model.parameters(), *model.buffers())
        ]
        own = [
            tensor
            for model in self.models.values()
            for path_own in model.own.values()
            for tensor in path_own.tensors.values()
            if tensor is not None
        ]
        tensors = [*shared, *own]
        storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
        return sum(storages.values())

    def own_bytes(self, path: Mapping[str, Value]) -> int:
        """What a path adds to the memory: its re-solved weights and statistics.

        Args:
            path: any path of the space; 0 for those that have nothing of their own.
        """
        path = self._space.canonical(path)
        model = self.models[self._model_name(path)]
        found = model.own.get(path)
        return sum(t.nbytes for t in found.tensors.values() if t is not None) if found else 0

    def choose(self, **budget: float | None) -> Point:
        """The most accurate path whose costs for one image keep to a budget; the cheaper one of
        equals.

        Args:
            budget: upper bounds by the names of costs: ``energy_mj``, ``latency_ms``, ``macs`` and
                the others that the front knows; None for no bound.

        Raises:
            InvalidValueError: no path is that cheap, or the front does not know the cost.
        """
        return self._chooser(budget).point

    @torch.inference_mode()
    def __call__(self, images: Tensor, **budget: float | None) -> Any:
        """The output of the best path that fits a budget, for images (B, C, Y, X).

        Switching sets which views of the weights are used; nothing is copied.

        Args:
            images: as :attr:`preprocess` makes them.
            budget: see :meth:`choose`.

        Raises:
            InvalidValueError: nothing fits, or images of another shape or type.
        """
        option = self._chooser(budget)
        model = self.models[option.weights]
        self._check(images)
        path = self._space.canonical(option.point.path)
        if model.path != path:
            model.activate(path)
        self._model = model
        return model(images)

    def choose_policy(
        self, *, max_loss: float | None = None, **budget: float | None
    ) -> DynamicPoint:
        """The policy that fits a budget and is promised to lose least; or the cheapest that is
        promised to lose no more than is allowed.

        Args:
            max_loss: accuracy that may be lost against the full path, in [0, 1]; in place of a
                budget.
            budget: see :meth:`choose`; of expected costs.

        Raises:
            InvalidValueError: nothing fits, there are no policies, or both are asked for.
        """
        if self._early_chooser is None:
            raise InvalidValueError(
                "leaving early by a budget needs policies, but this model has none: "
                "`paretopath exits RUN` finds them, or give a threshold"
            )
        if max_loss is None:
            return self._early_chooser(budget).point
        if any(bound is not None for bound in budget.values()):
            raise InvalidValueError("a policy is chosen by max_loss or by a budget, but got both")
        return within_loss(self.policies, max_loss)

    @torch.inference_mode()
    def classify_early(
        self,
        images: Tensor,
        *,
        threshold: float | None = None,
        path: Mapping[str, Value] | None = None,
        exits: Sequence[str] | None = None,
        policy: DynamicPoint | None = None,
        **budget: float | None,
    ) -> tuple[Tensor, Tensor]:
        """Classifies each image at the first exit that is sure of it; the batch shrinks as images
        leave.

        When images leave is said by a budget, by a policy, or by a threshold of one's own.

        Args:
            images: (B, C, Y, X), as :attr:`preprocess` makes them.
            threshold: an image leaves where its confidence reaches this, in (0, 1]; for a
                classifier that is its highest class probability.
            path: with a threshold, which blocks and widths to run; the full path by default. Its
                own exit is the last resort. It runs with its best weights, those of the full path
                where it was not measured.
            exits: with a threshold, names of the exits to ask, of those on the way of the path; all
                by default.
            policy: one of :attr:`policies`.
            budget: see :meth:`choose_policy`.

        Returns:
            logits (B, num_classes) and the index into :attr:`exits` at which each image left (B,),
            int64.

        Raises:
            InvalidValueError: a threshold, exits or a budget that can't be, or images of another
                shape or type.
        """
        self._check(images)
        if threshold is None:
            point = policy or self.choose_policy(**budget)
            steps, rule = self._policy_steps(point), by_policy(point.policy)
        else:
            if policy is not None or any(bound is not None for bound in budget.values()):
                raise InvalidValueError(
                    "images leave by a threshold, by a policy or by a budget, but got several"
                )
            if not 0.0 < threshold <= 1.0:
                raise InvalidValueError(f"a threshold must lie in (0, 1], but got {threshold}")
            steps = self._steps(self._model_name(path or {}), path or {}, exits)
            rule = at_threshold(self.task.confidence, threshold)
        logits, taken = leave_early(steps, images, rule)
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
        steps = self._steps(self._model_name({}), {}, exits)
        return sweep(steps, moved, thresholds, confidence=self.task.confidence)

    def _check(self, images: Tensor) -> None:
        self.preprocess.check(images, next(self.model.parameters()))

    def _model_name(self, path: Mapping[str, Value]) -> str:
        """The name of the weights that are the best known for a path, else for the full one."""
        wanted = self._space.canonical(path)
        option = self._by_path.get(wanted) or self._by_path.get(self._space.full)
        return option.weights if option else next(iter(self.models))

    def _policy_steps(self, point: DynamicPoint) -> tuple[Step, ...]:
        return self._steps(point.weights, point.path, point.policy.exits[:-1])

    def _steps(
        self, weights: str, path: Mapping[str, Value], exits: Sequence[str] | None
    ) -> tuple[Step, ...]:
        """A path's steps with exits; found once, since a call may be about a single image."""
        asked = None if exits is None else tuple(exits)
        key = (weights, self._space.canonical(path), asked)
        if key not in self._early:
            self._early[key] = steps_with_exits(self.models[weights], path, asked)
        return self._early[key]
