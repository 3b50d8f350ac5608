"""Many paths at once: the tree of shared steps, its memory, and features computed once a search."""

import weakref

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paretopath.elastic import Choice, ElasticLinear, ElasticModel, ElasticSpace, State, Unit
from paretopath.elastic.prefixes import PrefixTree, settled_steps
from paretopath.evaluation.evaluator import Evaluator
from paretopath.paths import Condition, Decision, ExecutionPath
from paretopath.tasks.classification.task import Classification
from paretopath.tasks.task import Score

DEPTH, FEATURES, CLASSES = 6, 8, 3


class Stem(Unit):
    def __init__(self) -> None:
        super().__init__("stem")
        self.layer = nn.Linear(12, FEATURES)

    def forward(self, state: State, choice: Choice) -> State:
        return self.layer(state.flatten(1))

    def extract(self, choice: Choice) -> nn.Module:
        raise NotImplementedError


class Block(Unit):
    """A residual layer of some width."""

    def __init__(self, name: str) -> None:
        super().__init__(
            name, decisions=(f"{name}.width",), requires=Condition(f"{name}.run", (True,))
        )
        self.up, self.down = ElasticLinear(FEATURES, 8), ElasticLinear(8, FEATURES)

    def forward(self, state: State, choice: Choice) -> State:
        return state + self.down(torch.relu(self.up(state, int(choice[f"{self.name}.width"]))))

    def extract(self, choice: Choice) -> nn.Module:
        raise NotImplementedError


class Head(Unit):
    is_exit = True

    def __init__(self) -> None:
        super().__init__("head")
        self.layer = nn.Linear(FEATURES, CLASSES)

    def forward(self, state: State, choice: Choice) -> State:
        return self.layer(state)

    def extract(self, choice: Choice) -> nn.Module:
        raise NotImplementedError


class Chain(ElasticSpace):
    """Blocks that may be skipped, each with a width."""

    def __init__(self) -> None:
        decisions = []
        for i in range(DEPTH):
            runs = Condition(f"blocks.{i}.run", (True,))
            decisions += [
                Decision(f"blocks.{i}.run", (False, True)),
                Decision(f"blocks.{i}.width", (2, 4, 8), runs),
            ]
        super().__init__(decisions, input_shape=(3, 2, 2))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        return [Stem(), *(Block(f"blocks.{i}") for i in range(DEPTH)), Head()]


@pytest.fixture
def model() -> ElasticModel:
    torch.manual_seed(0)
    return Chain().build()


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(1)
    return [
        (
            torch.randn(8, 3, 2, 2, generator=generator),
            torch.randint(CLASSES, (8,), generator=generator),
        )
        for _ in range(count)
    ]


def sampled(space: Chain, count: int) -> list[ExecutionPath]:
    rng = np.random.default_rng(0)
    return list({space.sample(rng): None for _ in range(2 * count)})[:count]


def settled_space(space: Chain, blocks: int) -> Chain:
    """The space with its first blocks at their fullest values."""
    allowed = {f"blocks.{i}.run": (True,) for i in range(blocks)}
    return space.restricted(allowed | {f"blocks.{i}.width": (8,) for i in range(blocks)})


class Counted:
    """A state that knows how many of its kind are alive."""

    alive = 0
    most = 0

    def __init__(self) -> None:
        Counted.alive += 1
        Counted.most = max(Counted.most, Counted.alive)
        weakref.finalize(self, Counted.died)

    @classmethod
    def died(cls) -> None:
        cls.alive -= 1


class CountingUnit(Unit):
    def __init__(self, name: str, decision: str, *, is_exit: bool) -> None:
        super().__init__(name, decisions=(decision,))
        self.is_exit = is_exit

    def forward(self, state: State, choice: Choice) -> State:
        return Counted()

    def extract(self, choice: Choice) -> nn.Module:
        raise NotImplementedError


class DeepSpace(ElasticSpace):
    def __init__(self, depth: int) -> None:
        self.depth = depth
        super().__init__(
            [Decision(f"d{i}", (0, 1, 2)) for i in range(depth)], input_shape=(1, 1, 1)
        )

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        last = self.depth - 1
        return [CountingUnit(f"u{i}", f"d{i}", is_exit=i == last) for i in range(self.depth)]


def comb(space: DeepSpace) -> list[ExecutionPath]:
    """Paths that leave one trunk at each of its units: a stack of states if walked carelessly."""
    trunk = dict.fromkeys(space.positions, 2)
    return [space.canonical(trunk), *(space.canonical({**trunk, f"d{i}": 0}) for i in range(40))]


@pytest.mark.parametrize("population", ["comb", "random"])
def test_states_alive_keep_the_trees_bound(population: str) -> None:
    space = DeepSpace(40)
    model = space.build()
    rng = np.random.default_rng(0)
    paths = comb(space) if population == "comb" else [space.sample(rng) for _ in range(60)]
    tree = PrefixTree(model, paths)
    Counted.alive = Counted.most = 0
    seen = [index for index, _ in tree.run(torch.zeros(1))]
    assert sorted(seen) == list(range(len(paths)))
    assert Counted.alive <= 1
    assert Counted.most <= tree.most_states == len(paths).bit_length() + 1


def test_shared_steps_run_once_a_batch(model: ElasticModel) -> None:
    space = model.space
    trunk = {f"blocks.{i}.run": True for i in range(DEPTH)}
    last = f"blocks.{DEPTH - 1}.width"
    paths = [space.canonical({**trunk, last: width}) for width in (2, 4, 8)]
    evaluate = Evaluator(model, batches(), Classification())
    evaluate(paths)
    runs = {(step.unit.name, step.choice): images for step, images in evaluate.work.items()}
    assert runs["stem", ()] == runs["blocks.0", (("blocks.0.width", 8),)] == 24
    assert sum(images for (name, _), images in runs.items() if name == "head") == 3 * 24


def test_settled_steps_are_those_that_no_decision_changes(model: ElasticModel) -> None:
    space = model.space
    assert settled_steps(model, space) == 1  # the stem
    assert settled_steps(model, settled_space(space, 3)) == 4
    skipped = settled_space(space, 3).restricted({"blocks.3.run": (False,)})
    assert settled_steps(model, skipped) == 4
    unsettled_first = space.restricted({"blocks.1.run": (False,)})
    assert settled_steps(model, unsettled_first) == 1


@pytest.mark.parametrize("room", [0, 1.5, 100])
def test_features_are_computed_once_and_leave_scores_as_they_are(
    model: ElasticModel, room: float
) -> None:
    space = settled_space(model.space, 3)
    paths = sampled(space, 5)
    plain = Evaluator(model, batches(), Classification())(paths)
    batch_bytes = 8 * FEATURES * 4
    evaluate = Evaluator(
        model, batches(), Classification(), space=space, feature_bytes=room * batch_bytes
    )
    assert evaluate(paths) == plain == evaluate(paths)
    assert evaluate.features.bytes <= room * batch_bytes
    stem = sum(images for step, images in evaluate.work.items() if step.unit.name == "stem")
    kept = {0: 0, 1.5: 1, 100: 3}[room]
    assert stem == 24 + 24 - 8 * kept


def test_a_search_that_stops_early_loses_no_batch(model: ElasticModel) -> None:
    space = settled_space(model.space, 3)
    paths = sampled(space, 4)
    plain = Evaluator(model, batches(), Classification())(paths)
    evaluate = Evaluator(model, batches(), Classification(), space=space, feature_bytes=1e9)
    first = evaluate.begin(paths)
    assert first.advance(range(4), batches=1) == 1
    assert evaluate(paths) == plain
    assert evaluate(paths) == plain


def test_evaluations_side_by_side_see_every_batch(model: ElasticModel) -> None:
    space = settled_space(model.space, 3)
    paths = sampled(space, 2)
    plain = Evaluator(model, batches(), Classification())(paths)
    evaluate = Evaluator(model, batches(), Classification(), space=space, feature_bytes=1e9)
    first, second = (evaluate.begin([path]) for path in paths)
    for _ in range(3):
        assert first.advance([0], batches=1) == second.advance([0], batches=1) == 1
    assert [first.score(0), second.score(0)] == plain


def test_paths_left_behind_keep_what_they_saw(model: ElasticModel) -> None:
    paths = sampled(model.space, 3)
    evaluation = Evaluator(model, batches(), Classification()).begin(paths)
    evaluation.advance([0, 1, 2], batches=1)
    assert evaluation.advance([1]) == 2
    scores = [evaluation.score(i) for i in range(3)]
    assert [score.samples for score in scores if isinstance(score, Score)] == [8, 24, 8]
    assert scores[1] == Evaluator(model, batches(), Classification())([paths[1]])[0]


def test_restricted_models_still_run_the_whole_space(model: ElasticModel) -> None:
    restricted = settled_space(model.space, DEPTH)
    assert restricted.size == 1
    assert restricted.build().space is model.space
