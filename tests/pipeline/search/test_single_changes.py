"""What single decisions lose and save, and the ladder that follows."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paretopath.elastic import Choice, ElasticSpace, State, Unit
from paretopath.evaluation.evaluator import Evaluator
from paretopath.evaluation.predictor import AccuracyPredictor, PredictorEvaluator
from paretopath.evaluation.sensitivity import Effect, Sensitivity
from paretopath.paths import Condition, Decision, ExecutionPath, Value
from paretopath.search.single_changes import greedy_ladder, measure_sensitivity
from paretopath.tasks.classification.task import Classification

IMAGES, CLASSES = 200, 4
# by decision and value: the share of images that it spoils, and its cost
WIDTHS = {"wide.ratio": {0.25: 0.2, 0.5: 0.02, 1.0: 0.0}, "cheap.ratio": {0.5: 0.3, 1.0: 0.0}}
WEIGHT = {"wide.ratio": 8.0, "cheap.ratio": 1.0, "wide.run": 0.0}


class Oracle(Unit):
    """Is right about an image unless a decision spoils it; images are (label, luck)."""

    is_exit = True

    def __init__(self) -> None:
        super().__init__("oracle", decisions=("wide.run", "wide.ratio", "cheap.ratio"))
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, state: State, choice: Choice) -> State:
        label, luck = state[:, 0, 0, 0].long(), state[:, 1, 0, 0]
        spoilt = max(WIDTHS[name][float(v)] for name, v in choice.items() if name in WIDTHS)
        spoilt = spoilt if choice["wide.run"] else 0.6
        answer = torch.where(luck < spoilt, (label + 1) % CLASSES, label)
        return nn.functional.one_hot(answer, CLASSES).float() * self.scale

    def extract(self, choice: Choice) -> nn.Module:
        raise NotImplementedError


class Space(ElasticSpace):
    def __init__(self) -> None:
        runs = Condition("wide.run", (True,))
        decisions = [
            Decision("wide.run", (False, True)),
            Decision("wide.ratio", (0.25, 0.5, 1.0), runs),
            Decision("cheap.ratio", (0.5, 1.0)),
        ]
        super().__init__(decisions, input_shape=(2, 1, 1))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        return [Oracle()]


SPACE = Space()


def cost_of(paths: Sequence[ExecutionPath]) -> np.ndarray:
    return np.array(
        [1 + sum(WEIGHT[n] * float(v) for n, v in path.items()) for path in paths], dtype=float
    )


def batches() -> list[tuple[Tensor, Tensor]]:
    rng = np.random.default_rng(0)
    labels = torch.from_numpy(rng.integers(CLASSES, size=IMAGES))
    luck = torch.from_numpy(rng.random(IMAGES))
    images = torch.stack([labels.double(), luck], 1)[:, :, None, None].float()
    return list(zip(images.split(25), labels.split(25), strict=True))


@pytest.fixture(scope="module")
def found() -> Sensitivity:
    evaluator = Evaluator(SPACE.build(), batches(), Classification())
    return measure_sensitivity(SPACE, cost_of, evaluator, metric="top-1", cost="energy_mj")


def effect(found: Sensitivity, name: str, value: Value) -> Effect:
    return next(e for e in found.effects if e.decision == name and e.value == value)


def test_every_decision_is_tried_alone(found: Sensitivity) -> None:
    tried = [(e.decision, e.value) for e in found.effects]
    assert tried == [
        ("wide.run", False),
        ("wide.ratio", 0.25),
        ("wide.ratio", 0.5),
        ("cheap.ratio", 0.5),
    ]
    assert found.accuracy == 1.0 and found.samples == IMAGES
    narrow = effect(found, "wide.ratio", 0.25)
    assert narrow.saved == pytest.approx(6 / 10)
    luck = torch.cat([images[:, 1, 0, 0] for images, _ in batches()])
    assert narrow.lost == pytest.approx(float((luck < 0.2).float().mean()))


def test_errors_are_those_of_the_paired_difference(found: Sensitivity) -> None:
    narrow = effect(found, "wide.ratio", 0.25)
    assert narrow.lost_error == pytest.approx(np.sqrt(0.2 * 0.8 / IMAGES), rel=0.25)
    barely = effect(found, "wide.ratio", 0.5)
    assert barely.lost_error < narrow.lost_error / 2


def test_what_loses_least_for_what_it_saves_comes_first(found: Sensitivity) -> None:
    ranked = [(e.decision, e.value) for e in found.ranked()]
    assert ranked[0] == ("wide.ratio", 0.5)
    assert ranked[-1] == ("cheap.ratio", 0.5)
    costs_more = Effect("x", 1, 0.9, -0.1, 0.0, saved=-0.2)
    grown = Sensitivity("top-1", "energy_mj", 0.9, 9, (*found.effects, costs_more))
    assert costs_more not in grown.ranked()


def test_a_ladder_falls_from_change_to_change(found: Sensitivity) -> None:
    ladder = greedy_ladder(SPACE, cost_of, found, 8)
    assert ladder[0] == {"wide.run": True, "wide.ratio": 0.5, "cheap.ratio": 1.0}
    assert (np.diff(cost_of(ladder)) < 0).all()
    assert SPACE.full not in ladder and len(set(ladder)) == len(ladder)
    two = greedy_ladder(SPACE, cost_of, found, 2)
    assert len(two) <= 2 and two[-1] == ladder[-1]


def test_predicted_accuracies_do_as_well() -> None:
    class Known:
        """Encodes a path by the one decision that its predictor goes by."""

        def encode(self, paths: Sequence[ExecutionPath]) -> np.ndarray:
            return np.array([[path.get("wide.ratio", 0.0)] for path in paths], dtype=np.float32)

        def encode_for_predictor(self, matrix: np.ndarray) -> np.ndarray:
            return matrix

    weight, bias = np.ones((1, 1), dtype=np.float32), np.zeros(1, dtype=np.float32)
    predictor = AccuracyPredictor([(weight, bias)], base=0.0)
    predicted = PredictorEvaluator(Known(), predictor)
    found = measure_sensitivity(SPACE, cost_of, predicted, metric="top-1", cost="macs")
    assert effect(found, "wide.ratio", 0.5).lost == 0.5
    assert effect(found, "wide.ratio", 0.5).lost_error == 0.0


def test_it_comes_back_from_disk(found: Sensitivity, tmp_path: Path) -> None:
    found.save(tmp_path / "sensitivity.json")
    assert Sensitivity.load(tmp_path / "sensitivity.json") == found
