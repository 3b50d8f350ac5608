"""Searches in which accuracies tell paths apart, and those in which they don't."""

import logging
from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState
from safetensors.torch import load_file

from paretopath import jobs
from paretopath.recipe import load_recipe
from paretopath.run import Run
from paretopath.search.alike import FirstScores, all_alike
from paretopath.search.record import Evaluated
from paretopath.tasks.task import Score
from paretopath.weights.files import write_state
from tests.pipeline.analytic import analytic_space

SPACE = analytic_space()


def scores(true: float | np.ndarray, *, images: int = 400, seed: int = 0) -> list[Score]:
    """Measured accuracies of eight paths whose true ones are given."""
    hits = np.random.default_rng(seed).binomial(images, np.broadcast_to(true, 8)) / images
    return [Score(v, float(np.sqrt(v * (1 - v) / images)), images) for v in hits.tolist()]


def test_equal_paths_are_alike_and_others_are_not() -> None:
    chance = [all_alike(scores(0.1, seed=seed)) for seed in range(100)]
    assert sum(chance) >= 90
    assert not any(all_alike(scores(np.linspace(0.3, 0.9, 8), seed=seed)) for seed in range(20))


def test_a_predictor_is_alike_only_where_all_is_equal() -> None:
    assert all_alike([Score(0.5, 0.0, 0)] * 8)
    assert not all_alike([Score(0.5 + i * 1e-4, 0.0, 0) for i in range(8)])


def test_few_scores_say_nothing() -> None:
    assert not all_alike([Score(0.5, 0.1, 20)] * 5)


def trials(accuracies: list[float]) -> list[Evaluated]:
    """The smallest path, the full one and others, with accuracies over 400 images."""
    rng = np.random.default_rng(0)
    paths = [SPACE.smallest, SPACE.full, *(SPACE.sample(rng) for _ in accuracies[2:])]
    rows = enumerate(zip(paths, accuracies, strict=True))
    state = TrialState.COMPLETE
    return [
        Evaluated(n, path, Score(value, 0.02, 400), {}, True, state, None, {})
        for n, (path, value) in rows
    ]


def test_alike_scores_are_said_once_and_only_with_both_ends_among_them() -> None:
    found = trials([0.1, 0.11, 0.1, 0.12, 0.1, 0.1, 0.1])
    first = FirstScores([SPACE.full, SPACE.smallest])
    assert first.alike(found[:3]) is None
    assert first.alike(found[3:]) == (0.1, 0.12)
    assert first.alike(found[3:]) is None
    resumed = FirstScores([SPACE.full, SPACE.smallest])
    assert resumed.alike(found[1:]) is None


def test_scores_that_tell_paths_apart_are_not_said() -> None:
    found = trials([0.2, 0.9, 0.3, 0.4, 0.5, 0.6, 0.7])
    assert FirstScores([SPACE.full, SPACE.smallest]).alike(found) is None


def test_a_search_of_untrained_weights_says_that_all_paths_score_alike(
    tiny_recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = {"train.lr": 1e-9, "search.trials": 10}
    recipe = load_recipe(tiny_recipe).with_overrides(overrides)
    run = Run.start(tiny_recipe.parent / "run", recipe, device="cpu")
    jobs.prepare_weights(run)
    with caplog.at_level(logging.WARNING, "paretopath"):
        jobs.search_run(run)
    assert caplog.text.count("all score alike, top-1") == 1
    assert caplog.text.count("not clearly better than always naming the commonest class") == 1


def test_weights_for_the_classes_in_another_order_are_doubted(
    searched: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def said(name: str, turn: int) -> str:
        state = load_file(searched / "weights.safetensors")
        for key, tensor in state.items():
            if key.endswith(("head.weight", "head.bias")):
                state[key] = tensor.roll(turn, 0).contiguous()
        write_state(tmp_path / f"{name}.safetensors", state)
        overrides = {"weights": str(tmp_path / f"{name}.safetensors"), "search.trials": 2}
        run = Run.start(tmp_path / name, Run.open(searched).recipe.with_overrides(overrides))
        jobs.prepare_weights(run)
        caplog.clear()
        with caplog.at_level(logging.WARNING, "paretopath"):
            jobs.search_run(run)
        return caplog.text

    doubt = "are the weights for these classes, in this order"
    assert doubt not in said("same", 0)
    assert doubt in said("turned", 1)


def test_more_trials_than_the_space_has_paths_are_said_and_end(
    tiny_recipe: Path, caplog: pytest.LogCaptureFixture
) -> None:
    overrides = {"search.trials": 100_000, "space.restrict": {"exit": [1]}}
    recipe = load_recipe(tiny_recipe).with_overrides(overrides)
    run = Run.start(tiny_recipe.parent / "run", recipe, device="cpu")
    jobs.prepare_weights(run)
    heard: list[tuple[int, int]] = []
    with caplog.at_level(logging.WARNING, "paretopath"):
        jobs.search_run(run, on_progress=lambda p: heard.append((p.finished, p.trials)))
    finished, trials = heard[-1]
    assert finished == trials < 20
    assert f"search.trials is 100000, but the space has {trials} paths" in caplog.text
