"""A search that takes no time: a small space whose costs and accuracies are formulas."""

import math
from collections.abc import Iterator, Sequence

import numpy as np

from paretopath.costs import COST_NAMES
from paretopath.paths import Condition, Decision, ExecutionPath, IndexMatrix, SearchSpace
from paretopath.tasks.task import Score, Stopped

IMAGES = 1000


def analytic_space(blocks: int = 6) -> SearchSpace:
    """An exit, blocks that can be skipped, their widths (0.65 and 0.8 are the same), a form."""
    decisions = [Decision("exit", tuple(range(2, blocks + 1)))]
    for i in range(blocks):
        later = tuple(range(max(i + 1, 2), blocks + 1))
        reached = Condition("exit", later) if i >= 2 else None
        decisions += [
            Decision(f"blocks.{i}.run", (False, True), reached),
            Decision(
                f"blocks.{i}.width",
                (0.25, 0.65, 0.8, 1.0),
                Condition(f"blocks.{i}.run", (True,)),
                aliases={0.65: 0.8},
            ),
        ]
    return SearchSpace([*decisions, Decision("form", ("merged", "as_published"))])


def tiny_space() -> SearchSpace:
    """Twelve paths."""
    return SearchSpace(
        [
            Decision("exit", (1, 2, 3)),
            Decision("wide", (False, True)),
            Decision("form", ("merged", "as_published")),
        ]
    )


class FormulaPricer:
    """Costs that add up over decisions: each has its own price, in proportion to how full it
    stands.

    Args:
        space: whose paths.
        broken: decisions' values (name, index) whose energy is not known.
    """

    def __init__(self, space: SearchSpace, broken: tuple[str, int] | None = None) -> None:
        self.space = space
        self.broken = broken
        self.asked = 0

    def encoded(self, matrix: IndexMatrix) -> dict[str, np.ndarray]:
        self.asked += len(matrix)
        sizes = np.array([len(d.values) for d in self.space.decisions])
        prices = 1 + np.arange(len(sizes)) % 3
        energy = 1 + ((matrix + 1) / sizes * prices).sum(axis=1)
        if self.broken:
            name, index = self.broken
            energy[matrix[:, self.space.positions[name]] == index] = np.nan
        unknown = np.full(len(matrix), np.nan)
        known = {"energy_mj": energy, "latency_ms": energy**2 / 10}
        return {name: known.get(name, unknown) for name in COST_NAMES}


class FormulaEvaluator:
    """Accuracies that rise and saturate with what a path keeps, one score at a time.

    Args:
        space: whose paths.
        error: standard error of each score; a path's own noise of that size is added.
    """

    def __init__(self, space: SearchSpace, error: float = 0.0) -> None:
        self.space = space
        self.error = error
        self.paths: list[ExecutionPath] = []

    def __call__(self, paths: Sequence[ExecutionPath]) -> Iterator[Score | Stopped | Exception]:
        for path in paths:
            self.paths.append(path)
            yield self.outcome(path)

    def outcome(self, path: ExecutionPath) -> Score | Stopped | Exception:
        noise = np.random.default_rng(int(path.id, 16)).normal() * self.error
        return Score(accuracy(self.space, path) + noise, self.error, IMAGES)


class Stopping(FormulaEvaluator):
    """Stops every other path but the full one and the smallest, as racing does."""

    def outcome(self, path: ExecutionPath) -> Score | Stopped | Exception:
        score = super().outcome(path)
        spared = path in (self.space.full, self.space.smallest) or int(path.id, 16) % 2
        if spared or not isinstance(score, Score):
            return score
        return Stopped(Score(score.value, 0.05, IMAGES // 4), beaten_by=self.space.full.id)


def accuracy(space: SearchSpace, path: ExecutionPath) -> float:
    """In [0, 1]: what decisions keep, weighted unlike their prices, through a saturating curve."""
    lost = 0.0
    for i, decision in enumerate(space.decisions):
        kept = 0.0
        if decision.name in path:
            kept = (decision.index(path[decision.name]) + 1) / len(decision.values)
        lost += (1 + i * 7 % 5) / 5 * (1 - kept) ** 2
    return 0.1 + 0.85 * math.exp(-0.3 * lost)
