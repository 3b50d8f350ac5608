"""How sure exits are, and what that is worth."""

import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from paretopath.errors import InvalidValueError
from paretopath.policies.calibration import ExpectedAccuracy, fit_temperature
from paretopath.policies.confidence import MEASURES, agreement, measure_named
from tests.pipeline.policies.example_outputs import made_up

SURE, SPLIT, EVEN = [20.0, 0.0, 0.0], [3.0, 3.0, -20.0], [1.0, 1.0, 1.0]


def test_measures_agree_about_what_is_sure_and_what_is_not() -> None:
    logits = torch.tensor([SURE, SPLIT, EVEN])
    expected = {
        "maximum": [1, 1 / 2, 1 / 3],
        "margin": [1, 0, 0],
        "entropy": [1, 1 - math.log(2) / math.log(3), 0],
    }
    for name, values in expected.items():
        found, memory = MEASURES[name](logits, ())
        assert found.tolist() == pytest.approx(values, abs=1e-6)
        assert memory == ()


def test_agreement_counts_the_exits_before_that_answered_alike() -> None:
    answers = [[0, 1, 1], [0, 0, 1], [0, 0, 2]]  # exits, images
    memory: tuple[torch.Tensor, ...] = ()
    counts = []
    for row in answers:
        found, memory = agreement(torch.eye(3)[row], memory)
        counts.append(found.tolist())
    assert counts == [[0, 0, 0], [1, 0, 1], [2, 1, 0]]


@pytest.mark.parametrize("name", MEASURES)
def test_what_is_not_a_number_is_never_sure(name: str) -> None:
    logits = torch.tensor([[math.nan, 1.0, 0.0], SURE])
    memory = (torch.tensor([1, 0]), torch.tensor([3.0, 3.0])) if name == "agreement" else ()
    assert MEASURES[name](logits, memory)[0][0] == 0


@pytest.mark.parametrize("name", MEASURES)
def test_maps_of_classes_have_one_confidence_an_image(name: str) -> None:
    logits = torch.randn(4, 3, 5, 6)
    found, memory = MEASURES[name](logits, ())
    assert found.shape == (4,)
    assert MEASURES[name](logits, memory)[0].shape == (4,)


def test_unknown_measures_are_refused_with_the_nearest() -> None:
    with pytest.raises(InvalidValueError, match=r"'margn'; legal: .*did you mean 'margin'"):
        measure_named("margn")


def test_temperature_is_found_again() -> None:
    outputs = made_up(4000, lead=2.0)
    logits = outputs.logits[-1]
    probabilities = (logits / 2.5).softmax(-1)
    drawn = torch.multinomial(probabilities, 1, generator=torch.Generator().manual_seed(0))[:, 0]
    assert fit_temperature(logits, drawn) == pytest.approx(2.5, rel=0.1)


def test_expected_accuracy_is_a_logistic_regression_that_can_be_inverted() -> None:
    outputs = made_up(3000)
    confidence = outputs.logits[-1].softmax(-1).amax(-1).double().numpy()
    found = ExpectedAccuracy.fit(confidence, outputs.right[-1])
    logit = np.log(confidence / (1 - confidence))[:, None]
    peer = LogisticRegression(C=1e6).fit(logit, outputs.right[-1])
    assert found.slope == pytest.approx(peer.coef_[0, 0], rel=0.02)
    assert found.intercept == pytest.approx(peer.intercept_[0], rel=0.05)
    thresholds = found.threshold(np.array([0.5, 0.8, 0.99]))
    assert (np.diff(thresholds) > 0).all()
    at = np.log(thresholds / (1 - thresholds))[:, None]
    assert peer.predict_proba(at)[:, 1] == pytest.approx([0.5, 0.8, 0.99], abs=0.02)


def test_where_confidence_says_nothing_all_leave_or_none() -> None:
    rng = np.random.default_rng(0)
    confidence = np.linspace(0.1, 0.9, 50)
    right = rng.random(50) < 0.8 - 0.5 * confidence  # worse than nothing
    found = ExpectedAccuracy.fit(confidence, right)
    assert found.slope == 0
    low, high = found.threshold(np.array([right.mean() - 0.1, right.mean() + 0.1]))
    assert low <= 0 and high > 1
