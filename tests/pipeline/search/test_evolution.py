"""The genetic search of a model."""

import numpy as np
import pytest

from paretopath.paths import IndexMatrix
from paretopath.search.candidates import Floats, Problem, enumerate_paths
from paretopath.search.evolution import evolve
from tests.pipeline.analytic import FormulaPricer, accuracy, analytic_space

SPACE = analytic_space(4)
EVERY = enumerate_paths(SPACE)


def value_of(matrix: IndexMatrix) -> Floats:
    return np.array([accuracy(SPACE, path) for path in SPACE.decode(matrix)])


@pytest.mark.parametrize("budgets", [{}, {"energy_mj": 11.0}])
def test_it_finds_the_best_new_path_of_nearly_every_cost(budgets: dict[str, float]) -> None:
    problem = Problem(SPACE, FormulaPricer(SPACE), "energy_mj", budgets)
    evaluated = SPACE.encode([SPACE.full, SPACE.smallest])
    found = evolve(
        problem, value_of, evaluated, np.random.default_rng(0), evaluations=15_000, bins=60
    )
    new = found.take(np.flatnonzero(found.is_new))
    assert problem.fits(found.matrix).all()
    assert (np.diff(found.cost) >= 0).all()
    assert (found.value == value_of(found.matrix)).all()
    assert (found.cost == problem.cost_of(found.matrix)).all()
    legal = EVERY[problem.fits(EVERY)]
    keys = problem.keys(legal)
    legal = legal[~np.isin(keys, problem.keys(evaluated))]
    cost, value = problem.cost_of(legal), value_of(legal)
    best = [value[cost <= limit].max() for limit in new.cost]
    reached = np.maximum.accumulate(new.value)
    assert (reached >= np.array(best) - 1e-12).mean() > 0.98


def test_evaluated_paths_are_told_from_new_ones() -> None:
    problem = Problem(SPACE, FormulaPricer(SPACE), "energy_mj")
    evaluated = EVERY[::2]
    found = evolve(
        problem, value_of, evaluated, np.random.default_rng(0), evaluations=6000, bins=10
    )
    known = np.isin(problem.keys(found.matrix), problem.keys(evaluated))
    assert (found.is_new == ~known).all()
    assert found.is_new.any() and known.any()


def test_the_same_generator_gives_the_same_archive() -> None:
    problem = Problem(SPACE, FormulaPricer(SPACE), "energy_mj")
    archives = [
        evolve(problem, value_of, EVERY[:3], np.random.default_rng(4), evaluations=3000, bins=9)
        for _ in range(2)
    ]
    assert (archives[0].matrix == archives[1].matrix).all()
