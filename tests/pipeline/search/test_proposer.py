"""Proposals: what they promise, and that they keep it."""

from dataclasses import replace

import moocore
import numpy as np
import pytest

from paretopath.paths import IndexMatrix
from paretopath.search.candidates import Floats, Problem, random_paths, starting_paths
from paretopath.search.proposer import History, ModelProposer, Staircase
from paretopath.search.samplers import RandomProposer, create_proposer
from tests.pipeline.analytic import FormulaPricer, accuracy, analytic_space

SPACE = analytic_space()


def problem(**budgets: float) -> Problem:
    return Problem(SPACE, FormulaPricer(SPACE), "energy_mj", budgets)


def history_of(rows: IndexMatrix, error: float = 0.0) -> History:
    values = np.array([accuracy(SPACE, path) for path in SPACE.decode(rows)])
    noise = np.random.default_rng(len(rows)).normal(size=len(rows)) * error
    return History(rows, values + noise, np.full(len(rows), error), problem().cost_of(rows))


def searched(
    sampler: str, trials: int, *, error: float = 0.0, seed: int = 0, limits: Problem | None = None
) -> History:
    """A search without a record, eight paths at a time."""
    limits = limits or problem()
    proposer = create_proposer(sampler, limits)
    history = history_of(starting_paths(limits, 6), error)
    while len(history) < trials:
        rows = proposer.propose(history, 8, np.random.default_rng([seed, len(history)]))
        new = history_of(rows, error)
        history = History(
            *(
                np.concatenate([getattr(history, name), getattr(new, name)])
                for name in ("matrix", "accuracy", "error", "cost")
            )
        )
    return history


def hypervolume(cost: Floats, value: Floats, reference: tuple[float, float]) -> float:
    return float(moocore.hypervolume(np.column_stack([cost, -value]), ref=reference))


def true_hypervolume(history: History) -> float:
    """Of the paths that look best, by what they are."""
    points = np.column_stack([history.cost, -history.accuracy])
    front = history.where(moocore.is_nondominated(points))
    truth = history_of(front.matrix)
    return hypervolume(truth.cost, truth.accuracy, (history.cost[0], 0.0))


@pytest.mark.parametrize("seed", range(20))
def test_gains_are_differences_of_hypervolume(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cost, value = rng.integers(1, 12, 9).astype(float), rng.integers(1, 12, 9) / 12
    stairs = Staircase(cost, value, 12.0)
    reference = (12.0 * 1.1, -stairs._floor)
    for _ in range(30):
        c, v = float(rng.integers(1, 13)), float(rng.integers(0, 13)) / 12
        before = hypervolume(cost, value, reference)
        cost, value = np.append(cost, c), np.append(value, v)
        assert stairs.gain(c, v) == pytest.approx(hypervolume(cost, value, reference) - before)
        stairs.add(c, v)


def test_a_climb_always_takes_the_greatest_gain() -> None:
    rng = np.random.default_rng(0)
    cost = rng.random(200) * 10 + 1
    value = np.sqrt(cost / 11) + 0.1 * rng.random(200)  # so that the front has many steps
    known_cost, known_value = np.array([1.0, 5.0, 11.0]), np.array([0.1, 0.5, 0.7])
    slow, fast = (Staircase(known_cost, known_value, 11.0) for _ in range(2))
    expected = []
    for _ in range(12):
        gains = [slow.gain(c, v) for c, v in zip(cost, value, strict=True)]
        best = int(np.argmax(gains))
        if gains[best] <= 0:
            break
        expected.append(best)
        slow.add(cost[best], value[best])
    assert fast.climb(cost, value, 12, np.arange(len(cost), dtype=np.uint64)) == expected
    assert len(expected) > 5


def test_proposals_are_new_distinct_and_within_the_budgets() -> None:
    tight = problem(energy_mj=12.0)
    history = history_of(random_paths(problem(), SPACE.encode([]), 60, np.random.default_rng(0)))
    rows = ModelProposer(tight).propose(history, 20, np.random.default_rng(1))
    assert len(rows) == 20
    assert tight.fits(rows).all()
    assert (SPACE.canonical_encoded(rows) == rows).all()
    together = np.concatenate([rows, history.matrix])
    assert len(np.unique(tight.keys(together))) == len(together)


def test_a_proposer_that_was_used_before_proposes_the_same() -> None:
    history = searched("model", 80)
    used = ModelProposer(problem())
    for size in (24, 40, 64):
        used.propose(history.first(size), 8, np.random.default_rng(size))
    new = ModelProposer(problem())
    a, b = (p.propose(history.first(72), 8, np.random.default_rng(9)) for p in (used, new))
    assert (a == b).all()


def test_what_trials_told_of_does_not_stand_for_trials() -> None:
    """Few paths teach nothing of most decisions, however much each tells of its own."""
    paths = random_paths(problem(), SPACE.encode([]), 120, np.random.default_rng(0))
    told = np.arange(120) % 6 > 0
    history = replace(history_of(paths), told=told)
    assert history.first(3).told.tolist() == told[:18].tolist()
    assert len(history.trials) == 20
    rows = ModelProposer(problem()).propose(history, 8, np.random.default_rng(1))
    plain = random_paths(problem(), history.matrix, 8, np.random.default_rng(1))
    assert (rows == plain).all()


@pytest.mark.parametrize("error", [0.0, 0.01])
def test_the_model_beats_four_times_as_many_random_paths(error: float) -> None:
    by_model = true_hypervolume(searched("model", 64, error=error))
    by_chance = true_hypervolume(searched("random", 256, error=error))
    assert by_model > by_chance


def test_the_model_beats_nsga2() -> None:
    assert true_hypervolume(searched("model", 64)) > true_hypervolume(searched("nsga2", 128))


def test_proposals_gather_under_a_budget() -> None:
    limits = problem(energy_mj=12.0)
    tight = searched("model", 64, limits=limits)
    wide = searched("model", 64)
    best = [h.where(limits.fits(h.matrix)).accuracy.max() for h in (tight, wide)]
    assert best[0] >= best[1]


def test_failed_trials_teach_nothing_and_are_not_proposed_again() -> None:
    history = searched("model", 48)
    failed = History(
        history.matrix,
        np.where(np.arange(48) % 3 == 2, np.nan, history.accuracy),
        history.error,
        history.cost,
    )
    rows = ModelProposer(problem()).propose(failed, 8, np.random.default_rng(0))
    assert not np.isin(problem().keys(rows), problem().keys(failed.matrix)).any()


def test_little_data_is_left_to_chance() -> None:
    history = history_of(starting_paths(problem(), 6))
    a = ModelProposer(problem()).propose(history, 8, np.random.default_rng(0))
    b = RandomProposer(problem()).propose(history, 8, np.random.default_rng(0))
    assert (a == b).all()
