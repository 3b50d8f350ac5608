"""What holds for every search space: the invariants of the design, over random paths."""

import copy
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils._pytree import tree_flatten, tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from paretopath.calibration.importance import sort_by_magnitude, sort_by_taylor
from paretopath.calibration.moments import calibrate
from paretopath.cost.model import Costs, LayerCostModel
from paretopath.cost.table import CostTable
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.batch_norm import batch_norms
from paretopath.elastic.channels import permute, reordered_together
from paretopath.elastic.exits import exit_paths, exits_on_the_way
from paretopath.elastic.own import PathTensors
from paretopath.elastic.repair import Repair, repairable
from paretopath.evaluation.batch_norm import recalibrate
from paretopath.evaluation.evaluator import Evaluator
from paretopath.paths import ExecutionPath
from paretopath.recipe import TrainSettings
from paretopath.search import SearchSettings, search
from paretopath.tasks.detection.objects import RawDetections
from paretopath.tasks.task import Score
from paretopath.tracing import Layer, Tracer, build_on_meta
from paretopath.training.retrain import SeparateTraining, SharedTraining


class MacsOnly(LayerCostModel):
    """A hardware whose energy and latency are the macs."""

    hardware = "macs"

    def price(self, layers: Sequence[Layer]) -> Costs:
        macs = np.array([float(layer.macs) for layer in layers])
        return Costs(macs, macs, np.zeros_like(macs))


def numbers(output: Any) -> torch.Tensor:
    """An output as one tensor: logits as they are; of a detector what it predicts, scores and
    boxes in shares of a hundred pixels, the surest first, so that the order of queries is none.
    """
    if isinstance(output, torch.Tensor):
        return output
    found = output.predict() if isinstance(output, RawDetections) else output
    return torch.cat([found.scores.flatten(1), found.boxes.flatten(1) / 100], dim=1)


class MeanScorer:
    """Scores a path by the mean of its outputs: any change of an output shows."""

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0

    def update(self, output: Any, target: Any) -> None:
        self.total += numbers(output).double().sum().item()
        self.count += numbers(output).numel()

    def compute(self) -> Score:
        return Score(self.total / self.count, 0.0, self.count)


class MeanTask:
    """A task whose accuracy is the mean output, and whose loss is its distance from one."""

    name = metric = "mean"

    def scorer(self) -> MeanScorer:
        return MeanScorer()

    def loss(self, output: Any, target: Any) -> torch.Tensor:
        untouched = [x for x in tree_leaves(output) if x.is_floating_point()]
        return (numbers(output) - 1).square().mean() + sum(0 * x.sum() for x in untouched)

    def distillation_loss(self, output: Any, teacher: Any, target: Any) -> torch.Tensor:
        if isinstance(output, RawDetections):
            return output.distill(teacher)
        return (output - teacher).square().mean()


def shapes(state: Any) -> tuple[Any, ...]:
    """What of a state on the meta device can change what a module does."""
    leaves, structure = tree_flatten(state)
    return str(structure), *(leaf.shape for leaf in leaves)


def torchs_count(static: nn.Module, state: Any) -> tuple[int, int, Any]:
    """FLOPs and parameters of a plain module, and what it gives."""
    static.eval().requires_grad_(False).to("meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = static(state)
    return counter.get_total_flops(), sum(p.numel() for p in static.parameters()), out


def train_one_step(
    training: SharedTraining | SeparateTraining, trained: nn.Module, batch: tuple[Any, Any]
) -> None:
    """What Lightning does with a batch."""
    optimizer = torch.optim.SGD(trained.parameters(), lr=1e-3)
    trained.train()
    loss = training.training_step(batch, 0)
    loss.backward()
    # two images normalised over single positions have gradients of any size
    torch.nn.utils.clip_grad_norm_(trained.parameters(), 1.0)
    optimizer.step()
    trained.eval()
    assert loss.isfinite()


class SpaceContract:
    """Inherit it and define :meth:`space` and :meth:`reference`, with a small model."""

    paths = 4

    @pytest.fixture(scope="class")
    def space(self) -> ElasticSpace:
        """A small space of the family."""
        raise NotImplementedError

    def reference(self, model: ElasticModel) -> Callable[[torch.Tensor], torch.Tensor]:
        """The original library's model with the elastic model's weights."""
        raise NotImplementedError

    @pytest.fixture(scope="class")
    def model(self, space: ElasticSpace) -> ElasticModel:
        torch.manual_seed(0)
        model = space.build()
        # no parameter at a value that hides a mistake: zero biases, unit scales
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.05 * torch.randn_like(parameter))
        return model

    @pytest.fixture
    def images(self, space: ElasticSpace) -> torch.Tensor:
        return torch.randn(2, *space.input_shape, generator=torch.Generator().manual_seed(1))

    def sampled(self, space: ElasticSpace) -> list[ExecutionPath]:
        rng = np.random.default_rng(0)
        return [space.full, space.smallest, *(space.sample(rng) for _ in range(self.paths))]

    @torch.inference_mode()
    def test_full_path_equals_the_original(self, model: ElasticModel, images: torch.Tensor) -> None:
        torch.testing.assert_close(
            numbers(model(images)),
            numbers(self.reference(model)(images)),
            rtol=1e-5,
            atol=1e-5,
        )

    @torch.inference_mode()
    def test_extracted_model_equals_active_path(
        self, space: ElasticSpace, model: ElasticModel, images: torch.Tensor
    ) -> None:
        for path in self.sampled(space):
            with model.active(path):
                expected = numbers(model(images))
            static = model.extract(path)
            torch.testing.assert_close(numbers(static(images)), expected, rtol=1e-5, atol=1e-5)
            elastic = ("Elastic", "Compensation")
            assert not [m for m in static.modules() if type(m).__name__.startswith(elastic)]

    def test_macs_equal_torchs_own_count(self, space: ElasticSpace) -> None:
        table = CostTable(space, MacsOnly())
        model = build_on_meta(space)
        images = torch.empty(1, *space.input_shape, device="meta")
        known: dict[Any, tuple[int, int, Any]] = {}
        for number, path in enumerate(self.sampled(space)):
            costs = table([path])
            flops, params, state = 0, 0, images
            for step in model.steps(path):
                key = (step, shapes(state))  # without data, all that can make a difference
                if key not in known:
                    known[key] = torchs_count(step.extract(), state)
                counted, held, state = known[key]
                flops, params = flops + counted, params + held
            assert costs.macs[0] * 2 == flops
            assert costs.params[0] == params
            if number < 2:
                assert torchs_count(model.extract(path), images)[:2] == (flops, params)

    def test_a_units_layers_depend_on_its_own_decisions_alone(self, space: ElasticSpace) -> None:
        trace = Tracer(build_on_meta(space))  # once for each state that reaches a unit
        seen: dict[tuple[str, Any], Any] = {}
        for path in self.sampled(space):
            for found in trace(path):
                assert (
                    seen.setdefault((found.unit.name, found.choice), found.layers) == found.layers
                )

    def test_encoding_round_trips_and_canonical_is_idempotent(self, space: ElasticSpace) -> None:
        rng = np.random.default_rng(1)
        paths = [space.sample(rng) for _ in range(50)]
        assert space.decode(space.encode(paths)) == paths
        assert [space.canonical(path) for path in paths] == paths

    def test_cost_never_falls_towards_fuller_values(self, space: ElasticSpace) -> None:
        table = CostTable(space, MacsOnly())
        rng = np.random.default_rng(2)
        for base in (space.full, space.sample(rng)):
            for name in list(base)[:: max(1, len(base) // 8)]:
                values = space[name].distinct
                costs = table([space.canonical({**base, name: value}) for value in values])
                assert (np.diff(costs.macs) >= 0).all(), name
                assert (np.diff(costs.params) >= 0).all() or name in self.params_may_fall, name

    params_may_fall: frozenset[str] = frozenset()

    def test_prefix_tree_scores_equal_scores_alone(
        self, space: ElasticSpace, model: ElasticModel, images: torch.Tensor
    ) -> None:
        paths = self.sampled(space)
        evaluate = Evaluator(model, [(images, torch.zeros(2))], MeanTask())  # type: ignore[arg-type]
        together = evaluate(paths)
        alone = [evaluate([path])[0] for path in paths]
        for a, b in zip(together, alone, strict=True):
            assert isinstance(a, Score) and isinstance(b, Score)
            assert a.value == pytest.approx(b.value, rel=1e-5, abs=1e-6)

    @pytest.fixture(scope="class")
    def own(self, space: ElasticSpace, model: ElasticModel) -> dict[ExecutionPath, PathTensors]:
        """The batch-norm statistics of some paths; none of them where the family has no norms."""
        generator = torch.Generator().manual_seed(2)
        images = 1 + 2 * torch.randn(4, *space.input_shape, generator=generator)
        return {path: recalibrate(model, path, [(images, None)]) for path in self.few(space)}

    def few(self, space: ElasticSpace) -> list[ExecutionPath]:
        return self.sampled(space)[:4]

    @torch.inference_mode()
    def test_a_path_runs_and_extracts_with_what_it_has_for_itself(
        self, model: ElasticModel, own: dict[ExecutionPath, PathTensors], images: torch.Tensor
    ) -> None:
        before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        for path, its_own in own.items():
            with model.active(path):
                shared = numbers(model(images))
            with model.active(path, its_own):
                expected = numbers(model(images))
                during = model.state_dict()
                static = model.extract(path, its_own)
            assert during.keys() == before.keys()
            assert all(torch.equal(during[name], tensor) for name, tensor in before.items())
            torch.testing.assert_close(numbers(static(images)), expected, rtol=1e-4, atol=1e-5)
            assert torch.allclose(shared, expected) == (not its_own.tensors)
            assert bool(its_own.tensors) == bool(batch_norms(model))

    @torch.inference_mode()
    def test_a_repaired_path_extracts_to_what_runs(
        self, space: ElasticSpace, model: ElasticModel, images: torch.Tensor
    ) -> None:
        if not repairable(model):
            pytest.skip("the family names no layer that reads narrowed channels")
        paths = [space.smallest, *self.few(space)[2:]]
        repaired = Repair(model, torch.cat([images, images.flip(-1)]))(paths)
        assert repaired
        for path, own in repaired.items():
            plain, static = model.extract(path), model.extract(path, own)
            with model.active(path, own), torch.inference_mode():
                expected = numbers(model(images))
                torch.testing.assert_close(numbers(static(images)), expected, rtol=1e-3, atol=1e-3)
            assert [p.shape for p in static.parameters()] == [p.shape for p in plain.parameters()]

    def test_paths_that_a_model_knows_something_of_run_with_it(
        self, model: ElasticModel, own: dict[ExecutionPath, PathTensors], images: torch.Tensor
    ) -> None:
        first, *_, last = own
        expected = {}
        for path in (first, last):
            with model.active(path, own[path]):
                expected[path] = numbers(model(images))
        model.own = own
        try:
            for path in (first, last, first):
                with model.active(path):
                    assert torch.equal(numbers(model(images)), expected[path])
                again = numbers(model.extract(path)(images))
                torch.testing.assert_close(again, expected[path], rtol=1e-4, atol=1e-5)
        finally:
            model.own = {}

    def test_a_path_scores_alike_whatever_was_scored_before(
        self, model: ElasticModel, own: dict[ExecutionPath, PathTensors], images: torch.Tensor
    ) -> None:
        evaluate = Evaluator(model, [(images, torch.zeros(2))], MeanTask())  # type: ignore[arg-type]
        for known in ({}, own):
            a, b, c, *_ = own
            first, *_, again = (evaluate([path], own=known) for path in (a, b, c, a))
            assert first == again
            together = evaluate(list(own), own=known)
            for path, score in zip(own, together, strict=True):
                (alone,) = evaluate([path], own=known)
                assert isinstance(score, Score) and isinstance(alone, Score)
                assert score.value == pytest.approx(alone.value, rel=1e-5, abs=1e-6)

    def nearly(self, output: Any) -> torch.Tensor:
        """What of an output rounding leaves nearly as it is."""
        return numbers(output)

    @pytest.mark.parametrize("autocast", [False, True])
    @torch.inference_mode()
    def test_half_precision_is_nearly_the_same(
        self,
        model: ElasticModel,
        own: dict[ExecutionPath, PathTensors],
        images: torch.Tensor,
        autocast: bool,
    ) -> None:
        half = model if autocast else copy.deepcopy(model).bfloat16()
        given = images if autocast else images.bfloat16()
        for path, its_own in own.items():
            with model.active(path, its_own):
                expected = self.nearly(model(images))
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                static = self.nearly(half.extract(path, its_own)(given))
                with half.active(path, its_own):
                    found = self.nearly(half(given))
            for output in (found, static):
                error = (output.float() - expected).square().mean() / expected.square().mean()
                assert float(error) < 0.01

    def test_what_a_space_accepts_the_whole_way_works_for(
        self, space: ElasticSpace, model: ElasticModel, images: torch.Tensor, tmp_path: Path
    ) -> None:
        torch.manual_seed(0)
        model, task = copy.deepcopy(model), MeanTask()
        batches = [(images, torch.zeros(2))]
        base = SharedTraining(model, exit_paths(model), TrainSettings(), task, distil=False)  # type: ignore[arg-type]
        train_one_step(base, model, batches[0])
        for part in model.parts():
            sort_by_magnitude(part)
            sort_by_taylor(part, batches, task.loss)
            calibrate(part, batches)
        study = search(
            space,
            CostTable(space, MacsOnly()),
            Evaluator(model, batches, task),  # type: ignore[arg-type]
            SearchSettings(trials=5, sampler="random", cost="macs"),
            run_dir=tmp_path,
        )
        assert [trial.state.name for trial in study.trials] == ["COMPLETE"] * 5
        paths = [space.full, space.smallest]
        retraining = SharedTraining(model, paths, TrainSettings(), task)  # type: ignore[arg-type]
        train_one_step(retraining, model, batches[0])
        for path in paths:
            own = recalibrate(model, path, batches)
            static = model.extract(path, own)
            with torch.inference_mode(), model.active(path, own):
                both = numbers(static(images)), numbers(model(images))
                torch.testing.assert_close(*both, rtol=1e-4, atol=1e-4)
                again = copy.deepcopy(model).extract(path)
                again.load_state_dict(static.state_dict())
                torch.testing.assert_close(numbers(again(images)), numbers(static(images)))
            alone = SeparateTraining(static, model, TrainSettings(), task)  # type: ignore[arg-type]
            train_one_step(alone, static, batches[0])
            assert all(bool(tensor.isfinite().all()) for tensor in static.state_dict().values())

    @torch.inference_mode()
    def test_sorting_channels_leaves_the_full_path_as_it_is(
        self, space: ElasticSpace, model: ElasticModel, images: torch.Tensor
    ) -> None:
        torch.manual_seed(0)
        shuffled = space.build()
        shuffled.load_state_dict(model.state_dict())
        before = numbers(shuffled(images))
        for places in reordered_together(shuffled.chain):
            order = torch.randperm(places[0].group.entries)
            for place in places:
                permute(place.unit, place.group, order)
        torch.testing.assert_close(numbers(shuffled(images)), before, rtol=1e-4, atol=1e-5)
        every_block = [d for d in space.decisions if not d.name.endswith(".run")]
        narrow = space.canonical({d.name: d.values[0] for d in every_block})
        both = (numbers(m.extract(narrow)(images)) for m in (model, shuffled))
        assert not torch.allclose(*both)

    def test_each_exit_has_a_path_that_trains_it(self, model: ElasticModel) -> None:
        ends = {model.steps(path)[-1].unit.name for path in exit_paths(model)}
        assert ends >= {unit.name for unit in model.chain if unit.is_exit}

    @torch.inference_mode()
    def test_an_exit_on_the_way_gives_what_the_path_to_it_gives(
        self, space: ElasticSpace, model: ElasticModel, images: torch.Tensor
    ) -> None:
        for path in self.sampled(space)[:4]:
            steps = model.steps(path)
            for found in exits_on_the_way(model, path):
                state: Any = images
                for step in (*steps[: found.after], found.step):
                    state = step(state)
                with model.active(found.path):
                    both = numbers(state), numbers(model(images))
                    torch.testing.assert_close(*both, rtol=1e-5, atol=1e-5)
