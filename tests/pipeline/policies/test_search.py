"""Policies that are found keep what they promise."""

import numpy as np
import pytest

from paretopath.errors import InvalidValueError
from paretopath.front.dynamic import Policy, within_loss
from paretopath.paths import ExecutionPath
from paretopath.policies.points import PathPolicies, dynamic_points, exits_taken, split_result
from paretopath.policies.search import search_policies
from tests.pipeline.policies.example_outputs import block_costs, made_up

PATH = ExecutionPath({"exit": 4})


def found(outputs, **options):
    costs = block_costs(len(outputs.exits))
    tried = search_policies(outputs, costs, outputs.right[-1], cost="energy_mj", **options)
    return PathPolicies(PATH, "searched", outputs, costs, tried)


def points_of(of_path, **options):
    return dynamic_points([of_path], of_path, cost="energy_mj", **options)


def test_a_policy_comes_to_the_same_among_many_and_alone() -> None:
    outputs = made_up(400)
    of_path = found(outputs, levels=8)
    tried = of_path.tried
    assert {str(name) for name in tried.confidence} == {
        "maximum",
        "margin",
        "entropy",
        "agreement",
    }
    for row in range(0, len(tried), 7):
        policy = tried.policy(row)
        alone = split_result(policy, outputs, outputs.right[-1], of_path.costs, "energy_mj")
        asked = tried.left.asked[row]
        assert alone.shares == pytest.approx(tried.left.shares[row, asked].tolist())
        assert alone.loss == pytest.approx(tried.left.loss[row])
        assert alone.cost == pytest.approx(tried.cost[row])
        assert alone.cost_error == pytest.approx(tried.cost_error[row])


def test_the_first_policy_is_the_path_that_nobody_leaves() -> None:
    outputs = made_up(300)
    tried = found(outputs, levels=4).tried
    assert tried.policy(0) == Policy("maximum", ("exits.4",), (), ())
    assert (tried.cost[0], tried.left.loss[0]) == (41, 0)
    assert exits_taken(tried.policy(0), outputs).tolist() == [3] * 300


def test_points_rise_in_cost_and_fall_in_what_they_lose() -> None:
    outputs = made_up(2000)
    points = points_of(found(outputs))
    costs = [point.cost("energy_mj") for point in points]
    bounds = [p.validation.loss + p.validation.loss_error for p in points[:-1]]
    assert len(points) > 5
    assert costs == sorted(costs) and bounds == sorted(bounds, reverse=True)
    assert all(p.promised_loss >= b - 1e-9 for p, b in zip(points, bounds, strict=False))
    chosen = within_loss(points, 0.01)
    assert chosen.promised_loss <= 0.01
    assert chosen.cost("energy_mj") < 0.9 * 41  # it saves something
    last = points[-1]
    assert (last.policy.exits, last.promised_loss) == (("exits.4",), 0.0)
    assert within_loss(points, 0.0).promised_loss <= 0


def test_budgets_are_for_expected_costs_but_nobody_need_leave() -> None:
    of_path = found(made_up(800), levels=8)
    *cheap, whole = points_of(of_path, budgets={"energy_mj": 25.0})
    assert len(cheap) > 2 and all(point.cost("energy_mj") <= 25 for point in cheap)
    assert whole.policy.exits == ("exits.4",)
    assert points_of(of_path, budgets={"energy_mj": 1.0}) == [whole]


def test_what_is_promised_holds_on_other_images() -> None:
    exceeded = {"promised": 0, "seen": 0}
    for seed in range(20):
        everything = made_up(2500, exits=5, seed=seed)
        seen, unseen = everything[np.arange(500)], everything[np.arange(500, 2500)]
        of_path = found(seen)
        best = np.flatnonzero(of_path.tried.left.loss <= 0.02)
        points = points_of(of_path)
        policies = {
            "promised": within_loss(points, 0.02).policy,
            "seen": of_path.tried.policy(int(best[of_path.tried.cost[best].argmin()])),
        }
        for name, policy in policies.items():
            held_out = split_result(policy, unseen, unseen.right[-1], of_path.costs, "energy_mj")
            exceeded[name] += held_out.loss - held_out.loss_error > 0.02
    assert exceeded["promised"] <= 2 < 6 <= exceeded["seen"], exceeded


def test_of_many_exits_only_small_sets_are_tried() -> None:
    outputs = made_up(100, exits=12)
    tried = found(outputs, most=4000, levels=10, confidences=("margin",)).tried
    assert 2000 < len(tried) <= 4100
    counts = tried.left.asked.sum(axis=1) - 1
    assert set(counts.tolist()) == {0, 1, 2, 3, 11}


def test_a_path_with_one_exit_is_left_there() -> None:
    outputs = made_up(50, exits=1)
    points = points_of(found(outputs))
    assert [p.policy.exits for p in points] == [("exits.1",)]


def test_costs_that_are_not_known_are_refused() -> None:
    outputs = made_up(50)
    with pytest.raises(InvalidValueError, match="compared by latency_ms, which is not known"):
        search_policies(outputs, block_costs(), outputs.right[-1], cost="latency_ms")
