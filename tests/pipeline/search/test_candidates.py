"""What may be evaluated next."""

import numpy as np
import pytest

from paretopath.errors import InvalidValueError
from paretopath.search.candidates import (
    PathKeys,
    Problem,
    enumerate_paths,
    fresh,
    neighbours,
    random_paths,
    repair,
    starting_paths,
)
from tests.pipeline.analytic import FormulaPricer, analytic_space, tiny_space

SPACE = analytic_space(3)


def problem(**budgets: float) -> Problem:
    return Problem(SPACE, FormulaPricer(SPACE), "energy_mj", budgets)


def test_enumeration_gives_every_canonical_path_once() -> None:
    for space in (SPACE, tiny_space()):
        rows = enumerate_paths(space)
        assert len(rows) == space.size
        assert len(np.unique(rows, axis=0)) == space.size
        assert (space.canonical_encoded(rows) == rows).all()


def test_keys_tell_all_paths_of_a_space_apart() -> None:
    rows = enumerate_paths(SPACE)
    keys = PathKeys(SPACE)(rows)
    assert len(np.unique(keys)) == len(rows)
    assert (PathKeys(SPACE)(rows[::-1]) == keys[::-1]).all()


def test_a_problem_refuses_unknown_costs_and_empty_budgets() -> None:
    with pytest.raises(InvalidValueError, match=r"'energy' is not a cost; .*did you mean"):
        Problem(SPACE, FormulaPricer(SPACE), "energy")
    with pytest.raises(InvalidValueError, match="'latency' is not a cost"):
        problem(latency=3.0)
    for bound in (0.0, -1.0, float("nan")):
        with pytest.raises(InvalidValueError, match="a budget must be positive"):
            problem(energy_mj=bound)


def test_every_budget_counts() -> None:
    rows = enumerate_paths(SPACE)
    costs = FormulaPricer(SPACE).encoded(rows)
    energy, latency = costs["energy_mj"], costs["latency_ms"]
    expected = (energy <= 9) & (latency <= 7)
    assert 0 < expected.sum() < (energy <= 9).sum()
    assert (problem(energy_mj=9.0, latency_ms=7.0).fits(rows) == expected).all()


def test_a_budget_that_no_path_fits_says_what_the_cheapest_costs() -> None:
    cheapest = FormulaPricer(SPACE).encoded(SPACE.encode([SPACE.smallest]))["energy_mj"][0]
    message = rf"a budget of 500 µJ of energy: .* takes {cheapest:.2f} mJ of energy"
    with pytest.raises(InvalidValueError, match=message):
        _ = problem(energy_mj=0.5).cheapest


def test_fresh_keeps_order_and_drops_repeats_seen_and_too_costly_ones() -> None:
    rows = enumerate_paths(SPACE)
    rng = np.random.default_rng(0)
    shuffled = rows[rng.permutation(len(rows))]
    found = fresh(problem(energy_mj=9.0), np.concatenate([shuffled, shuffled]), shuffled[:10])
    expected = [row for row in shuffled[10:] if problem(energy_mj=9.0).fits(row[None])[0]]
    assert (found == np.array(expected)).all()


def test_neighbours_differ_by_one_decision() -> None:
    row = SPACE.encode([SPACE.full])
    around = neighbours(SPACE, row)
    steps = sum(len(d.distinct) - 1 for d in SPACE.decisions if d.name in SPACE.full)
    assert len(np.unique(around, axis=0)) == steps
    assert (SPACE.canonical_encoded(around) == around).all()


def test_repair_makes_paths_fit_and_leaves_those_that_do() -> None:
    tight = problem(energy_mj=6.0)
    rows = SPACE.sample_encoded(np.random.default_rng(1), 300)
    fits = tight.fits(rows)
    repaired = repair(tight, rows, np.random.default_rng(2))
    assert 0 < fits.sum() < len(rows)
    assert tight.fits(repaired).all()
    assert (repaired[fits] == rows[fits]).all()
    assert len(np.unique(repaired[~fits], axis=0)) > 5  # not all the same one


def test_random_paths_end_with_the_space() -> None:
    small = problem(energy_mj=6.0)
    rows = enumerate_paths(SPACE)
    legal = rows[small.fits(rows)]
    found = random_paths(small, legal[:5], len(rows), np.random.default_rng(3))
    assert {tuple(row) for row in found} == {tuple(row) for row in legal[5:]}
    assert len(found) == len(legal) - 5


def test_a_start_holds_the_full_path_the_smallest_and_rungs_between() -> None:
    rows = starting_paths(problem(), rungs=4)
    assert SPACE.decode(rows[:2]) == [SPACE.full, SPACE.smallest]
    energy = FormulaPricer(SPACE).encoded(rows)["energy_mj"]
    assert len(np.unique(rows, axis=0)) == len(rows) == 6
    assert (np.diff(energy[2:]) > 0).all()
    assert energy[1] < energy[2] and energy[-1] < energy[0]


def test_a_start_under_a_budget_fits_it_but_for_the_full_path() -> None:
    tight = problem(energy_mj=6.0)
    rows = starting_paths(tight, rungs=4)
    assert SPACE.decode(rows[:1]) == [SPACE.full]
    assert not tight.fits(rows[:1])[0]
    assert len(rows) > 3 and tight.fits(rows[1:]).all()


def test_paths_that_a_user_names_come_right_after_the_full_one() -> None:
    space = problem().space
    named = [space.sample(np.random.default_rng(seed)) for seed in range(3)]
    rows = starting_paths(problem(), rungs=4, named=[*named, space.full])
    assert space.decode(rows[:4]) == [space.full, *named]
    assert len(set(space.decode(rows))) == len(rows)
