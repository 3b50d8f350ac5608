"""Many policies at once give what a loop over images gives."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paretopath.errors import InvalidValueError
from paretopath.policies.leaving import Leaving, loss_of
from tests.pipeline.policies.example_outputs import block_costs, made_up


@st.composite
def problems(draw: st.DrawFn) -> tuple:
    """(confidences, right, reference, thresholds, choices): any sizes, ties included."""
    exits, images = draw(st.integers(1, 5)), draw(st.integers(1, 150))
    values, policies = draw(st.integers(1, 4)), draw(st.integers(0, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    confidences = rng.integers(0, 6, (exits, images)) / 5
    right = rng.random((exits, images)) < 0.6
    thresholds = rng.integers(0, 7, (exits, values)) / 5  # some are never reached
    choices = rng.integers(0, values + 1, (policies, exits))
    return confidences, right, rng.random(images) < 0.7, thresholds, choices


@settings(max_examples=60, deadline=None)
@given(problems())
def test_counts_are_those_of_a_loop_over_single_images(problem: tuple) -> None:
    confidences, right, reference, thresholds, choices = problem
    exits, images = right.shape
    found = Leaving(confidences, right, reference, thresholds)(choices)
    assert found.images.sum() == images
    for p, row in enumerate(choices):
        left, lost, won = np.zeros(exits, int), 0, 0
        for i in range(images):
            e = next(
                e
                for e in range(exits)
                if e == exits - 1
                or (row[e] < thresholds.shape[1] and confidences[e, i] >= thresholds[e, row[e]])
            )
            left[e] += 1
            lost += reference[i] and not right[e, i]
            won += right[e, i] and not reference[i]
        assert found.left[p].tolist() == left.tolist()
        assert (found.lost[p].sum(), found.won[p].sum()) == (lost, won)
        assert found.loss[p] == pytest.approx((lost - won) / images)


@settings(max_examples=30, deadline=None)
@given(problems())
def test_thresholds_never_reached_give_the_last_exit_and_those_always_reached_the_first(
    problem: tuple,
) -> None:
    confidences, right, reference, _, _ = problem
    exits, images = right.shape
    thresholds = np.tile([-np.inf, np.inf], (exits, 1))
    found = Leaving(confidences, right, reference, thresholds)(
        np.array([[0] * exits, [1] * exits, [2] * exits])
    )
    ends = np.zeros((3, exits), int)
    ends[0, 0] = ends[1, -1] = ends[2, -1] = images
    assert found.left.tolist() == ends.tolist()
    assert found.asked[2].tolist() == [False] * (exits - 1) + [True]
    assert found.loss[1] == pytest.approx(reference.mean() - right[-1].mean())


def test_a_policy_costs_the_way_to_each_exit_and_the_heads_that_were_asked() -> None:
    outputs, costs = made_up(1000), block_costs()
    leaving = Leaving(
        outputs.logits.softmax(-1).amax(-1).numpy(),
        outputs.right,
        outputs.right[-1],
        np.full((4, 1), 0.7),
    )
    left = leaving(np.array([[0, 1, 0, 1], [1, 1, 1, 1]]))
    shares = left.shares[0]
    energy, error = costs(left, "energy_mj")
    assert energy[0] == pytest.approx(shares @ [11, 0, 32, 43])
    assert 0 < error[0] < 1 and error[1] == 0
    assert energy[1] == 41
    assert costs(left, "params")[0].tolist() == [43, 41]  # held by whoever leaves
    assert costs(left, "activation_bytes")[0].tolist() == [50, 50]  # the largest part


def test_errors_of_losses_are_paired_and_stay_above_zero() -> None:
    loss, error = loss_of(np.array([0, 30, 300]), np.array([0, 20, 290]), 1000)
    assert loss.tolist() == [0.0, 0.01, 0.01]
    assert 0 < error[0] < 0.002 < error[1] < error[2]
    assert error[2] == pytest.approx((590 / 1000 / 1000) ** 0.5, rel=0.01)


def test_a_million_policies_take_less_than_a_minute() -> None:
    outputs = made_up(4000, exits=4)
    thresholds = np.tile(np.linspace(0.2, 1.0, 20), (4, 1))
    confidences = outputs.logits.softmax(-1).amax(-1).numpy()
    leaving = Leaving(confidences, outputs.right, outputs.right[-1], thresholds)
    choices = np.random.default_rng(0).integers(0, 21, (20_000, 4))
    start = time.process_time()
    leaving(choices)
    assert (time.process_time() - start) * 50 < 60


def test_what_does_not_fit_together_is_refused() -> None:
    right = np.ones((2, 3), bool)
    with pytest.raises(InvalidValueError, match=r"but got \(2, 4\), \(2, 3\)"):
        Leaving(np.ones((2, 4)), right, right[0], np.ones((2, 1)))
    with pytest.raises(InvalidValueError, match=r"thresholds must be \(exits, values\) for 2"):
        Leaving(np.ones((2, 3)), right, right[0], np.ones((3, 1)))
    leaving = Leaving(np.ones((2, 3)), right, right[0], np.ones((2, 1)))
    with pytest.raises(InvalidValueError, match=r"choices must lie in \[0, 1\]"):
        leaving(np.array([[0, 2]]))
