"""Racing: who stops, with which accuracy, and that nothing is evaluated twice."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from paretopath.elastic import Choice, ElasticModel, ElasticSpace, State, Unit
from paretopath.errors import InvalidValueError
from paretopath.evaluation.evaluator import Evaluator
from paretopath.paths import Decision, ExecutionPath
from paretopath.recipe import Racing
from paretopath.search.racing import (
    Finisher,
    Finishers,
    Lap,
    Outcome,
    Racer,
    estimated,
)
from paretopath.tasks.classification.task import Classification
from paretopath.tasks.segmentation.task import Segmentation
from paretopath.tasks.task import Score, Stopped, Task

LEVELS = tuple(range(12))
IMAGES, BATCH, CLASSES = 320, 10, 4


class Oracle(Unit):
    """Answers as the image tells it: image i is right on the paths of level >= its difficulty."""

    is_exit = True

    def __init__(self, dense: bool) -> None:
        super().__init__("oracle", decisions=("level", "twin"))
        self.scale = nn.Parameter(torch.ones(1))
        self.dense = dense

    def forward(self, state: State, choice: Choice) -> State:
        label, difficulty = state[:, 0], state[:, 1]  # (B, Y, X) each, constant over an image
        right = difficulty <= float(choice["level"])
        answer = torch.where(right, label, (label + 1) % CLASSES).long()
        logits = nn.functional.one_hot(answer, CLASSES).float().movedim(-1, 1) * self.scale
        return logits if self.dense else logits[:, :, 0, 0]

    def extract(self, choice: Choice) -> nn.Module:
        raise NotImplementedError


class LevelSpace(ElasticSpace):
    """One decision that is the accuracy, and one that changes nothing."""

    def __init__(self, *, dense: bool) -> None:
        self.dense = dense
        decisions = [Decision("level", LEVELS), Decision("twin", (False, True))]
        super().__init__(decisions, input_shape=(2, 4, 4))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        return [Oracle(self.dense)]


def images(seed: int = 0) -> list[tuple[Tensor, Tensor]]:
    """Batches whose first channel is the label and whose second the difficulty."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(CLASSES, size=IMAGES)
    # most images are easy for all; the rest need one of the levels
    needed = np.where(rng.random(IMAGES) < 0.2, -1, rng.choice(len(LEVELS), size=IMAGES))
    pixels = torch.from_numpy(np.stack([labels, needed], 1)).float()
    stacked = pixels[:, :, None, None].expand(-1, -1, 4, 4)
    return list(zip(stacked.split(BATCH), torch.from_numpy(labels).split(BATCH), strict=True))


def setting(kind: str) -> tuple[ElasticModel, list[tuple[Tensor, Tensor]], Task]:
    dense = kind == "segmentation"
    batches = images()
    if dense:
        batches = [(x, y[:, None, None].expand(-1, 4, 4).contiguous()) for x, y in batches]
    task: Task = Segmentation() if dense else Classification()
    return LevelSpace(dense=dense).build(), batches, task


def path(model: ElasticModel, level: int, twin: bool = True) -> ExecutionPath:
    return model.space.canonical({"level": level, "twin": twin})


def racer(
    kind: str = "classification",
    *,
    costs: Sequence[float] | None = None,
    folder: Path | None = None,
    racing: Racing | None = None,
) -> Racer:
    """A racer for which a path costs 1 unless ``costs`` says what each level does."""
    model, batches, task = setting(kind)

    def cost_of(paths: Sequence[ExecutionPath]) -> np.ndarray:
        return np.array([1.0 if costs is None else costs[int(p["level"])] for p in paths])

    return Racer(
        Evaluator(model, batches, task),
        cost_of,
        racing=racing or Racing(),
        spared=[model.space.full],
        folder=folder,
    )


def run(raced: Racer, levels: Sequence[int]) -> list[Outcome]:
    return raced([path(raced.evaluator.model, level) for level in levels])


def images_run(raced: Racer) -> int:
    return sum(raced.evaluator.work.values())


@pytest.mark.parametrize("kind", ["classification", "segmentation"])
def test_beaten_candidates_stop_and_the_others_see_every_image(kind: str) -> None:
    raced = racer(kind)
    levels = [11, 8, 1, 0]
    outcomes = run(raced, levels)
    model, batches, task = setting(kind)
    whole = Evaluator(model, batches, task)([path(model, level) for level in levels])
    assert outcomes[0] == whole[0]
    assert all(isinstance(outcome, Stopped) for outcome in outcomes[1:])
    assert images_run(raced) == sum(
        o.samples if isinstance(o, Score) else o.score.samples
        for o in outcomes
        if isinstance(o, Score | Stopped)
    )
    assert images_run(raced) < 0.5 * len(levels) * IMAGES
    for outcome, full in zip(outcomes[1:], whole[1:], strict=True):
        assert isinstance(outcome, Stopped) and isinstance(full, Score)
        assert outcome.beaten_by == path(model, 11).id
        assert outcome.score.error >= 0.9 * full.error
        unseen = (outcome.score.error**2 - whole[0].error ** 2) ** 0.5
        assert abs(outcome.score.value - full.value) < 4 * unseen


def test_a_cheaper_path_is_not_stopped_by_a_dearer_one() -> None:
    raced = racer(costs=[float(level) for level in LEVELS])
    assert all(isinstance(outcome, Score) for outcome in run(raced, LEVELS))
    assert images_run(raced) == len(LEVELS) * IMAGES


def test_equal_paths_do_not_stop_each_other() -> None:
    raced = racer()
    model = raced.evaluator.model
    outcomes = raced([path(model, 7, twin) for twin in (False, True)])
    assert outcomes[0] == outcomes[1] and isinstance(outcomes[0], Score)


def test_the_baseline_never_stops() -> None:
    costs = [1.0] * len(LEVELS)
    costs[-1] = 5.0
    raced = racer(costs=costs)
    model = raced.evaluator.model
    raced._spared = frozenset([path(model, 2)])
    outcomes = run(raced, [10, 2, 1])
    assert isinstance(outcomes[1], Score) and isinstance(outcomes[2], Stopped)


def test_finished_paths_of_before_stop_later_candidates(tmp_path: Path) -> None:
    run(racer(folder=tmp_path), [11, 6])
    resumed = racer(folder=tmp_path)
    (outcome,) = run(resumed, [1])
    assert isinstance(outcome, Stopped)
    assert outcome.beaten_by == path(resumed.evaluator.model, 11).id
    assert outcome.score.samples < IMAGES


def test_a_race_that_is_run_again_comes_to_the_same(tmp_path: Path) -> None:
    first = run(racer(folder=tmp_path), [11, 10, 3, 0])
    assert run(racer(folder=tmp_path), [11, 10, 3, 0]) == first


def test_candidates_that_are_close_see_more_images_than_those_far_behind() -> None:
    outcomes = run(racer(), [11, 10, 9, 0])
    seen = [o.score.samples if isinstance(o, Stopped) else IMAGES for o in outcomes]
    assert seen == sorted(seen, reverse=True)
    assert seen[0] == IMAGES and seen[-1] < IMAGES / 4


def test_a_candidate_that_fails_does_not_touch_the_others() -> None:
    raced = racer()
    with torch.no_grad():
        next(raced.evaluator.model.parameters()).fill_(float("nan"))
    outcomes = run(raced, [11, 2])
    assert all(isinstance(outcome, InvalidValueError) for outcome in outcomes)


def test_paired_differences_are_surer_than_two_accuracies() -> None:
    model, batches, task = setting("classification")
    evaluation = Evaluator(model, batches, task).begin([path(model, 8), path(model, 9)])
    evaluation.advance([0, 1], batches=8)
    draws = np.random.default_rng(0).multinomial(80, np.full(80, 1 / 80), size=200).astype(float)
    laps = []
    for i in range(2):
        score = evaluation.score(i)
        assert isinstance(score, Score)
        laps.append(Lap(score.samples, score.value, evaluation.scorers[i].resampled(draws)))  # type: ignore[attr-defined]
    _, error = laps[1].ahead_of(laps[0], 0.25)
    apart = np.hypot(*(lap.replicates.std(ddof=1) for lap in laps))
    assert error < 0.6 * apart
    answers = [scorer.right for scorer in evaluation.scorers]  # type: ignore[attr-defined]
    exact = (answers[1].astype(float) - answers[0]).std(ddof=1) / np.sqrt(80) * np.sqrt(0.75)
    assert error == pytest.approx(exact, rel=0.2)


def test_few_candidates_stop_wrongly() -> None:
    """Of neighbours in accuracy, at most a few per cent are stopped by the worse one."""
    wrong = total = 0
    for seed in range(30):
        model, _, task = setting("classification")
        raced = Racer(
            Evaluator(model, images(seed), task),
            lambda paths: np.ones(len(paths)),
            racing=Racing(),
        )
        _, high = run(raced, [6, 7])
        total += 1
        wrong += isinstance(high, Stopped)
    assert wrong / total <= 0.05


def test_estimates_use_the_reference_that_is_most_alike() -> None:
    rng = np.random.default_rng(0)
    noise, own = rng.normal(size=(2, 200))
    lap = Lap(40, 0.5, 0.5 + 0.1 * noise)
    alike = Finisher(1.0, Score(0.7, 0.02, 160), {40: Lap(40, 0.6, 0.6 + 0.1 * noise)})
    unlike = Finisher(1.0, Score(0.9, 0.02, 160), {40: Lap(40, 0.6, 0.6 + 0.1 * own)})
    score = estimated(lap, 0.25, [unlike, alike])
    assert score.value == pytest.approx(0.7 - 0.1)
    assert score.error == pytest.approx(0.02)
    assert estimated(lap, 0.25, []).value == 0.5


def test_finishers_come_back_from_disk_without_the_beaten_ones(tmp_path: Path) -> None:
    laps = {40: Lap(40, 0.5, np.linspace(0, 1, 200))}
    kept = Finishers(tmp_path)
    kept.add("good", Finisher(1.0, Score(0.8, 0.01, 99), laps))
    kept.add("beaten", Finisher(2.0, Score(0.7, 0.01, 99), laps))
    kept.add("better", Finisher(2.0, Score(0.9, 0.01, 99), laps))
    found = Finishers(tmp_path).read()
    assert set(found) == set(kept.read()) == {"good", "better"}
    assert found["good"].score == Score(0.8, 0.01, 99)
    np.testing.assert_array_equal(found["good"].laps[40].replicates, laps[40].replicates)


@pytest.mark.parametrize("shares", [(0.5, 0.25), (0.0, 0.5), (0.5, 1.0)])
def test_shares_must_rise_within_the_images(shares: tuple[float, ...]) -> None:
    with pytest.raises(ValidationError, match="shares must rise"):
        Racing(shares=shares)


def test_confidence_must_be_more_than_chance() -> None:
    with pytest.raises(ValidationError, match=r"greater than 0\.5"):
        Racing(confidence=0.4)
