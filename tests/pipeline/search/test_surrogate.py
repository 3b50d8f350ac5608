"""The model of accuracy: its posterior, its gradient, and what it learns."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.optimize import approx_fprime

from paretopath.paths import Decision, IndexMatrix, SearchSpace
from paretopath.search.candidates import Floats, Mask
from paretopath.search.hyperparameters import _objective, _Prior, fit_hyperparameters
from paretopath.search.surrogate import AccuracyModel, Encoding, Hyperparameters, Measurements
from tests.pipeline.analytic import FormulaPricer, accuracy, analytic_space

SPACE = analytic_space()


def cost_of(matrix: IndexMatrix) -> Floats:
    return FormulaPricer(SPACE).encoded(matrix)["energy_mj"]


ENCODING = Encoding(SPACE, cost_of)


def sample(count: int, seed: int = 0) -> tuple[IndexMatrix, Floats]:
    """Distinct random paths with their accuracies."""
    rows = np.unique(SPACE.sample_encoded(np.random.default_rng(seed), 4 * count), axis=0)
    rows = np.random.default_rng(seed).permutation(rows)[:count]
    return rows, np.array([accuracy(SPACE, path) for path in SPACE.decode(rows)])


def measure(rows: IndexMatrix, values: Floats, error: float | Floats = 0.0) -> Measurements:
    return Measurements.of(ENCODING, rows, values, np.broadcast_to(error, len(rows)))


def hyperparameters(seed: int = 0) -> Hyperparameters:
    rng = np.random.default_rng(seed)
    n = len(ENCODING)
    return Hyperparameters(0.2 + rng.random(n) / 2, rng.normal(size=n) / 3, 0.4, 0.8, 0.01)


def naive(
    measured: Measurements, rows: IndexMatrix, hyper: Hyperparameters
) -> tuple[Floats, Floats]:
    """Posterior mean and deviation, by the textbook (Rasmussen and Williams, eq. 2.25 and 2.26)."""

    def kernel(a: Floats, b: Floats) -> Floats:
        apart = ((a[:, None] - b) * hyper.relevance) ** 2
        along = (a @ hyper.direction)[:, None] - b @ hyper.direction
        remainder = hyper.remainder * np.exp(-apart.sum(axis=2) / 2)
        return remainder + hyper.index * np.exp(-(along**2) / 2) + 4.0

    x = measured.features
    new = ENCODING(rows) - measured.centre
    noise = np.diag(hyper.noise * measured.spread + measured.extra + 1e-6)
    inverse = np.linalg.inv(kernel(x, x) + noise)
    cross = kernel(new, x)
    mean = cross @ inverse @ measured.target
    variance = np.diag(kernel(new, new) - cross @ inverse @ cross.T)
    return measured.mean + measured.scale * mean, measured.scale * np.sqrt(variance)


def test_codes_tell_all_paths_apart_and_never_fall_as_values_rise() -> None:
    rows, _ = sample(2000)
    codes = ENCODING(rows)
    assert len(np.unique(codes, axis=0)) == len(rows)
    assert set(np.unique(codes)) == {0.0, 1.0}
    assert (ENCODING(SPACE.encode([SPACE.full])) == 1).all()
    assert len(np.unique(ENCODING(rows), axis=1).T) == len(ENCODING)  # no feature twice


def test_features_that_say_nothing_are_left_out() -> None:
    space = SearchSpace([Decision("fixed", (1,)), Decision("free", (1, 2, 3))])
    assert len(Encoding(space, lambda rows: np.ones(len(rows)))) == 2


@pytest.mark.parametrize("error", [0.0, 0.02])
def test_the_posterior_is_the_textbooks(error: float) -> None:
    rows, values = sample(40)
    measured = measure(rows, values, np.linspace(0.5, 1.5, 40) * error)
    model = AccuracyModel(ENCODING, measured, hyperparameters())
    new, _ = sample(1500, seed=1)
    mean, deviation = naive(measured, new, hyperparameters())
    assert model.mean(new) == pytest.approx(mean, abs=2e-5)
    assert model.deviation(new) == pytest.approx(deviation, abs=2e-5)


def test_the_fits_gradient_is_its_slope() -> None:
    rows, values = sample(50)
    measured = measure(rows, values, np.linspace(0.01, 0.03, 50))
    prior = _Prior.of(ENCODING, measured)
    point = prior.centre + np.random.default_rng(2).normal(size=len(prior.centre)) / 10
    arguments = (measured, prior)
    _, gradient = _objective(point, *arguments)
    slope = approx_fprime(point, lambda p: _objective(p, *arguments)[0], 1e-6)
    assert gradient == pytest.approx(slope, rel=1e-3, abs=1e-3)


def test_accuracies_of_new_paths_are_predicted() -> None:
    rows, values = sample(150)
    measured = measure(rows, values)
    hyper = fit_hyperparameters(ENCODING, measured, np.random.default_rng(0))
    model = AccuracyModel(ENCODING, measured, hyper)
    new, truth = sample(500, seed=1)
    missed = model.mean(new) - truth
    assert np.sqrt((missed**2).mean()) < 0.03 * truth.std()
    assert (np.abs(missed) < 4 * model.deviation(new) + 1e-3).mean() > 0.9


def test_a_decision_that_does_not_matter_is_found_out() -> None:
    space = SearchSpace([Decision(name, (1, 2, 3)) for name in "abcd"])
    encoding = Encoding(space, lambda rows: 1.0 + rows.sum(axis=1))
    rows = space.sample_encoded(np.random.default_rng(0), 60)
    values = np.tanh(rows[:, 0] * rows[:, 1] / 2 + rows[:, 2] / 3)  # d changes the cost alone
    measured = Measurements.of(encoding, rows, values, np.zeros(len(rows)))
    hyper = fit_hyperparameters(encoding, measured, np.random.default_rng(0))
    weight = np.abs(hyper.direction).reshape(4, 2).sum(axis=1)
    assert weight[3] < 0.1 * weight[:3].min()


def test_measurements_with_larger_errors_count_less() -> None:
    rows, values = sample(60)
    wrong = values.copy()
    wrong[7] += 0.2
    exact, rough = np.full(60, 0.01), np.full(60, 0.01)
    rough[7] = 0.3
    hyper = replace(hyperparameters(), noise=0.05)
    trusted = AccuracyModel(ENCODING, measure(rows, wrong, exact), hyper).mean(rows[7:8])
    doubted = AccuracyModel(ENCODING, measure(rows, wrong, rough), hyper).mean(rows[7:8])
    assert abs(doubted - values[7]) < abs(trusted - values[7]) / 2


def test_equal_accuracies_are_no_trouble() -> None:
    rows, _ = sample(30)
    measured = measure(rows, np.full(30, 0.1))
    hyper = fit_hyperparameters(ENCODING, measured, np.random.default_rng(0))
    model = AccuracyModel(ENCODING, measured, hyper)
    assert model.mean(rows) == pytest.approx(0.1)
    assert np.isfinite(model.deviation(rows)).all()


def test_partial_measurements_count_by_their_own_error() -> None:
    rows, values = sample(60)
    wrong = values.copy()
    wrong[40:] += 0.2
    partial = np.arange(60) >= 40
    errors = np.where(partial, 0.5, 0.01)
    hyper = hyperparameters()
    new, _ = sample(1500, seed=1)

    def mean(measured: Measurements) -> Floats:
        return AccuracyModel(ENCODING, measured, hyper).mean(new)

    def off(accuracy: Floats, error: Floats, partial: Mask | None) -> float:
        found = mean(Measurements.of(ENCODING, rows, accuracy, error, partial))
        return float(np.abs(found - mean(measure(rows, values, 0.01))).mean())

    weighed = off(wrong, errors, partial)
    trusted = off(wrong, np.full(60, 0.01), None)
    assert weighed < trusted / 3
    exact = Measurements.of(ENCODING, rows, values, np.full(60, 0.01), partial)
    assert (exact.extra == 0).all()


@pytest.mark.parametrize("kind", ["one path", "one path again and again", "all alike", "huge"])
def test_measurements_that_say_little_still_give_a_model(kind: str) -> None:
    rows, values = sample(12)
    if kind.startswith("one path"):
        rows = rows[:1].repeat(1 if kind == "one path" else 30, axis=0)
        values = np.linspace(0.2, 0.8, len(rows))
    values = {"all alike": np.zeros_like(values), "huge": 1e12 * values}.get(kind, values)
    measured = measure(rows, values)
    hyper = fit_hyperparameters(ENCODING, measured, np.random.default_rng(0))
    extreme = replace(hyper, relevance=hyper.relevance * 0, remainder=1e3, index=1e9, noise=0.0)
    for learned in (hyper, extreme):
        model = AccuracyModel(ENCODING, measured, learned)
        assert np.isfinite(model.mean(rows)).all() and np.isfinite(model.deviation(rows)).all()
