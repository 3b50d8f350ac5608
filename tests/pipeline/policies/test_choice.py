"""What is promised of policies that were chosen from many."""

import numpy as np

from paretopath.policies.choice import worth_keeping

IMAGES = np.full(5, 200)


def test_paths_that_nobody_leaves_early_are_not_beaten_by_the_luckiest_of_many_policies() -> None:
    generator = np.random.default_rng(0)
    lost, won = generator.poisson(3, (2, 20_000, 5))  # policies that are worth the same, by chance
    cost = generator.uniform(10, 20, 20_000)
    lost[0] = won[0] = 0  # the one path that is as right as the full one, image by image
    cost[0] = 21
    early = (np.arange(20_000) > 0).astype(np.int64)
    together = worth_keeping(lost, won, IMAGES, cost, np.zeros(20_000, np.int64), most=48)
    assert 0 not in together.rows  # policies seem better and cheaper
    kept = worth_keeping(lost, won, IMAGES, cost, early, most=48)
    promised = dict(zip(kept.rows.tolist(), kept.promised_loss.tolist(), strict=True))
    assert promised.pop(0) < 0.0015
    assert promised and min(promised.values()) > 0.005


def test_what_another_kind_beats_in_cost_and_promise_goes() -> None:
    lost = np.array([[1] * 5, [2] * 5, [4] * 5, [0] * 5])
    won = np.zeros_like(lost)
    cost = np.array([10.0, 12.0, 8.0, 20.0])
    kept = worth_keeping(lost, won, IMAGES, cost, np.array([0, 1, 1, 0]), most=48)
    assert kept.rows.tolist() == [2, 0, 3]
    assert np.all(np.diff(kept.promised_loss) < 0)


def test_of_very_many_some_are_kept_from_end_to_end() -> None:
    lost = np.arange(100, 0, -1)[:, None] * np.ones(5, np.int64)
    cost = np.arange(100.0)
    for kinds in (np.zeros(100, np.int64), np.arange(100) % 2):
        kept = worth_keeping(lost, np.zeros_like(lost), IMAGES, cost, kinds, most=10)
        assert len(kept.rows) == 10
        assert (kept.rows[0], kept.rows[-1]) == (0, 99)
