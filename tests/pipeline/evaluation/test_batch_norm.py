"""Batch-normalisation statistics of single paths."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from paretopath import jobs
from paretopath.deploy.dynamic_model import DynamicModel
from paretopath.elastic import (
    Choice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticModel,
    ElasticSpace,
    State,
    Unit,
)
from paretopath.elastic.own import OwnFolder, PathTensors
from paretopath.errors import CheckpointError, InvalidValueError
from paretopath.evaluation.batch_norm import Recalibration, recalibrate, settle_statistics
from paretopath.evaluation.evaluator import Evaluator
from paretopath.evaluation.fitted import FittedEvaluator
from paretopath.paths import Decision, ExecutionPath
from paretopath.recipe import load_recipe
from paretopath.run import Run, assemble, load_model
from paretopath.tasks.task import Score


class Block(Unit):
    """An elastic convolution, its normalisation, and the mean of its channels as logits."""

    is_exit = True

    def __init__(self) -> None:
        super().__init__("block", decisions=("width",))
        self.conv = ElasticConv2d(3, 8, (3, 3), bias=False)
        self.norm = ElasticBatchNorm2d(8)

    def forward(self, state: State, choice: Choice) -> State:
        return self.norm(self.conv(state, int(choice["width"])))

    def extract(self, choice: Choice) -> nn.Module:
        width = int(choice["width"])
        return nn.Sequential(self.conv.narrow(3, width), self.norm.narrow(width))


class Space(ElasticSpace):
    def __init__(self) -> None:
        super().__init__([Decision("width", (4, 8))], input_shape=(3, 8, 8))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        return [Block()]


@pytest.fixture
def model() -> ElasticModel:
    torch.manual_seed(0)
    return Space().build()


def batches(*sizes: int) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    return [(3 + 2 * torch.randn(n, 3, 8, 8, generator=generator), torch.zeros(n)) for n in sizes]


def test_statistics_normalise_the_calibration_images(model: ElasticModel) -> None:
    images = batches(16)
    statistics = recalibrate(model, {"width": 4}, images)
    with model.active(statistics.path, statistics), torch.no_grad():
        out = model(images[0][0])
    assert out.shape[1] == 4
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(4), atol=1e-4, rtol=0)
    torch.testing.assert_close(out.std((0, 2, 3)), torch.ones(4), atol=1e-2, rtol=0)


def test_batches_weigh_as_many_images_as_they_have(model: ElasticModel) -> None:
    first, second = batches(4, 12)
    mixed = recalibrate(model, {}, [first, second]).tensors
    alone = [recalibrate(model, {}, [b]).tensors for b in (first, second)]
    for which in ("units.block.norm.running_mean", "units.block.norm.running_var"):
        torch.testing.assert_close(mixed[which], 0.25 * alone[0][which] + 0.75 * alone[1][which])


def test_settled_statistics_are_the_models_own(model: ElasticModel) -> None:
    images = batches(4, 12)
    settle_statistics(model, [model.space.full], images)
    with torch.no_grad():
        out = model.eval()(torch.cat([x for x, _ in images]))
    torch.testing.assert_close(out.mean((0, 2, 3)), torch.zeros(8), atol=1e-2, rtol=0)
    assert model.chain[0].norm.running_mean.abs().max() > 0.1


def test_the_models_own_statistics_and_path_stay(model: ElasticModel) -> None:
    norm = model.chain[0].norm
    mean, before = norm.running_mean, norm.running_mean.clone()
    statistics = recalibrate(model, {"width": 4}, batches(8))
    with model.active(statistics.path, statistics):
        assert model.path == {"width": 4}
        assert norm.running_mean is mean
    assert norm.running_mean is mean and torch.equal(mean, before)
    assert model.path == {"width": 8}
    assert not norm._forward_pre_hooks


def test_a_measurement_that_fails_leaves_nothing_behind(model: ElasticModel) -> None:
    norm = model.chain[0].norm
    mean = norm.running_mean
    with pytest.raises(RuntimeError, match="channels"):
        recalibrate(model, {"width": 4}, [(torch.zeros(1, 5, 8, 8), None)])
    assert norm.running_mean is mean and not norm._forward_pre_hooks


def test_extracted_model_takes_the_paths_statistics(model: ElasticModel) -> None:
    images = batches(8)[0][0]
    statistics = recalibrate(model, {"width": 4}, batches(8))
    with model.active(statistics.path, statistics), torch.no_grad():
        expected = model(images)
    static = model.extract(statistics.path, statistics)
    torch.testing.assert_close(static(images), expected)


def test_statistics_survive_a_file(model: ElasticModel, tmp_path: Path) -> None:
    statistics = recalibrate(model, {"width": 4}, batches(8))
    statistics.save(tmp_path / "path.safetensors")
    loaded = PathTensors.load(tmp_path / "path.safetensors", statistics.path)
    assert loaded.path == statistics.path and loaded.tensors.keys() == statistics.tensors.keys()
    for name, tensor in statistics.tensors.items():
        assert torch.equal(tensor, loaded.tensors[name])


def test_a_path_without_normalisations_has_none_to_keep(tmp_path: Path) -> None:
    folder = OwnFolder(tmp_path)
    folder.keep(PathTensors(ExecutionPath({"width": 4}), {}))
    found = folder[ExecutionPath({"width": 4})]
    assert found is not None and not found.tensors


def test_other_files_are_not_taken_for_statistics(tmp_path: Path) -> None:
    torch.save({"gamma": torch.zeros(2)}, tmp_path / "weights.pth")
    with pytest.raises(CheckpointError, match="does not hold what a path has for itself"):
        PathTensors.load(tmp_path / "weights.pth", ExecutionPath({"width": 4}))


def test_recalibration_needs_images(model: ElasticModel) -> None:
    with pytest.raises(InvalidValueError, match="at least one image"):
        recalibrate(model, {"width": 4}, [])


class SpreadScorer:
    """Accuracy: how near the outputs' spread is to one, which only right statistics give."""

    def __init__(self) -> None:
        self.outputs: list[Tensor] = []

    def update(self, output: Tensor, target: object) -> None:
        self.outputs.append(output)

    def compute(self) -> Score:
        spread = torch.cat(self.outputs).std((0, 2, 3)).mean().item()
        return Score(1 - abs(1 - spread), 0.0, sum(len(o) for o in self.outputs))


class SpreadTask:
    name = metric = "spread"

    def scorer(self) -> SpreadScorer:
        return SpreadScorer()


def test_each_path_is_scored_with_its_own_statistics(model: ElasticModel) -> None:
    evaluate = Evaluator(model, batches(8, 8), SpreadTask())  # type: ignore[arg-type]
    paths = [model.space.smallest, model.space.full]
    shared = evaluate(paths)
    own = list(FittedEvaluator(evaluate, Recalibration(model, batches(8, 8)))(paths))
    for before, after in zip(shared, own, strict=True):
        assert isinstance(before, Score) and isinstance(after, Score)
        assert before.value < 0.9 < 0.99 < after.value
        assert after.samples == 16


def test_the_path_that_was_trained_keeps_the_models_statistics(model: ElasticModel) -> None:
    evaluate = Evaluator(model, batches(8, 8), SpreadTask())  # type: ignore[arg-type]
    full = model.space.full
    fit = Recalibration(model, batches(8, 8), trained_on=full)
    own = FittedEvaluator(evaluate, fit)
    assert [score.value for score in own([full])] == [score.value for score in evaluate([full])]
    assert list(own.own([full, model.space.smallest])) == [model.space.smallest]


def test_kept_statistics_are_measured_once(model: ElasticModel, tmp_path: Path) -> None:
    evaluate = Evaluator(model, batches(8, 8), SpreadTask())  # type: ignore[arg-type]
    kept = OwnFolder(tmp_path / "statistics")
    fit, no_images = Recalibration(model, batches(8, 8)), Recalibration(model, [])
    first = list(FittedEvaluator(evaluate, fit, kept=kept)([model.space.smallest]))
    # no images any more: what is on disk has to do
    again = list(FittedEvaluator(evaluate, no_images, kept=kept)([model.space.smallest]))
    assert first == again
    assert kept[model.space.full] is None


def test_a_path_runs_with_its_own_statistics_wherever_it_runs(model: ElasticModel) -> None:
    images = batches(8)[0][0]
    own_mean = model.chain[0].norm.running_mean
    model.own = {
        path: recalibrate(model, path, batches(8))
        for path in (model.space.full, model.space.smallest)
    }
    for path in (model.space.smallest, model.space.full):
        with model.active(path), torch.no_grad():
            out = model(images)
        torch.testing.assert_close(out.std((0, 2, 3)).mean(), torch.tensor(1.0), atol=0.02, rtol=0)
        static = model.extract(path)
        with torch.no_grad():
            torch.testing.assert_close(static(images), out)
    model.own = {}
    assert model.chain[0].norm.running_mean is own_mean


NORMALISED = """
name: normalised
space: {name: "tests.pipeline.normalised_space:NormalisedSpace"}
data: {source: digits, mean: 0.305, std: 0.376, batch_size: 128, workers: 0}
calibration: {compensate: false, order: magnitude, batch_norm_images: 128}
train: {epochs: 4, lr: 0.01, warmup_epochs: 0.5}
retrain: {epochs: 2, lr: 0.003, warmup_epochs: 0.5}
search: {trials: 9, sampler: random}
tracking: {mode: disabled}
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """All nine paths of a small network with batch norms, measured on the digits."""
    folder = tmp_path_factory.mktemp("normalised")
    recipe = folder / "recipe.yaml"
    recipe.write_text(NORMALISED)
    run = Run.start(folder / "run", load_recipe(recipe), device="cpu")
    jobs.prepare_weights(run)
    jobs.search_run(run)
    return run


def test_after_base_training_the_full_path_has_measured_statistics(searched: Run) -> None:
    parts = assemble(searched)
    model = load_model(parts.space, searched.weights_file, searched)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    parts.images.settle(model, [parts.space.full])
    for name, buffer in model.named_buffers():  # measured anew, nothing moves
        torch.testing.assert_close(buffer, before[name], rtol=1e-3, atol=1e-4)


def test_a_search_scores_paths_with_their_own_statistics(searched: Run) -> None:
    parts = assemble(searched)
    narrow = parts.space.smallest
    scores = {trial.path: trial.accuracy for trial in searched.trials(parts.space)}
    model = load_model(parts.space, searched.weights_file, searched)
    plain = Evaluator(model, parts.images.data.loader("validation"), parts.task)
    (mistaken,) = plain([narrow])
    assert isinstance(mistaken, Score)
    assert scores[narrow] != mistaken.value
    for row in jobs.evaluate_run(searched):
        assert row["validation"].value == scores[searched.front()[row["id"]].path]


def test_what_is_deployed_has_the_statistics_of_its_path(searched: Run) -> None:
    dynamic = DynamicModel.load(searched.directory)
    loader = assemble(searched).images.data.loader("test")
    for point in dynamic.points:
        right = total = 0
        for images, labels in loader:
            logits = dynamic(images, energy_mj=point.energy_mj)
            right += int((logits.argmax(1) == labels).sum())
            total += len(labels)
        assert dynamic.path == point.path
        assert right / total == pytest.approx(point.test_accuracy)
        static = dynamic.model.extract(dynamic.path)
        torch.testing.assert_close(static(images), logits)


def test_shared_retraining_measures_statistics_for_each_path_again(searched: Run) -> None:
    (job,) = jobs.plan_retraining(searched, selection="count=2", mode="shared")
    results = jobs.retrain(searched, job)
    front = jobs.collect(searched, "shared", results)
    folder = searched.own("shared")
    for result in results:
        assert folder[result.path] is not None  # the full path's too: training mixed them
        assert front[result.path.id].best_accuracy == result.validation.value
    dynamic = DynamicModel.load(searched.directory)
    for option in dynamic.options:
        assert option.point.path in dynamic.models[option.weights].own
