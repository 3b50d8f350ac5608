"""Paths re-solved in sequence: where they land, what they share, what they leave alone."""

import copy

import pytest
import torch
from torch import Tensor, nn

from paretopath.elastic import (
    ChannelGroup,
    Choice,
    ElasticBatchNorm2d,
    ElasticConv2d,
    ElasticLinear,
    ElasticModel,
    ElasticSpace,
    Onto,
    Reader,
    State,
    Unit,
)
from paretopath.elastic.layers import absorb_bias
from paretopath.elastic.repair import Repair, repairable
from paretopath.elastic.repair.regression import regress
from paretopath.elastic.repair.rows import Call
from paretopath.elastic.repair.targets import Targets
from paretopath.errors import InvalidValueError
from paretopath.paths import Condition, Decision

CHANNELS, HIDDEN, CLASSES, BLOCKS = 6, 12, 5, 3


class Residual(Unit):
    """x + norm(conv2(relu(conv1(x)))), as narrow inside as its decision says."""

    def __init__(self, name: str, kernel: int) -> None:
        requires = Condition(f"{name}.run", (True,))
        super().__init__(name, decisions=(f"{name}.width",), requires=requires)
        padding = kernel // 2
        self.conv1 = ElasticConv2d(CHANNELS, HIDDEN, (3, 3), padding=1)
        self.conv2 = ElasticConv2d(HIDDEN, CHANNELS, (kernel, kernel), padding=padding, bias=False)
        self.norm = ElasticBatchNorm2d(CHANNELS)
        nn.init.uniform_(self.norm.weight, 0.5, 1.5)
        nn.init.uniform_(self.norm.running_var, 0.5, 1.5)
        nn.init.uniform_(self.norm.running_mean, -0.5, 0.5)

    def forward(self, state: State, choice: Choice) -> State:
        hidden = self.conv1(state, int(choice[self.decisions[0]])).relu()
        return state + self.norm(self.conv2(hidden, onto=Onto(state, self.norm)))

    def extract(self, choice: Choice) -> nn.Module:
        width = int(choice[self.decisions[0]])
        conv2, norm = self.conv2.narrow(width, CHANNELS), self.norm.narrow(CHANNELS)
        absorb_bias(conv2, norm)
        return Plain(self.conv1.narrow(CHANNELS, width), conv2, norm)

    def channel_groups(self) -> list[ChannelGroup]:
        return [ChannelGroup(HIDDEN, ("conv1",), (Reader("conv2"),))]


class Plain(nn.Module):
    def __init__(self, conv1: nn.Module, conv2: nn.Module, norm: nn.Module) -> None:
        super().__init__()
        self.conv1, self.conv2, self.norm = conv1, conv2, norm

    def forward(self, x: Tensor) -> Tensor:
        changed: Tensor = x + self.norm(self.conv2(self.conv1(x).relu()))
        return changed


class Head(Unit):
    is_exit = True

    def __init__(self, name: str, requires: Condition | None) -> None:
        super().__init__(name, requires=requires)
        self.linear = ElasticLinear(CHANNELS, CLASSES)

    def forward(self, state: State, choice: Choice) -> State:
        return self.linear(state.mean((2, 3)))

    def extract(self, choice: Choice) -> nn.Module:
        linear = self.linear.narrow(CHANNELS, CLASSES)
        return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear)


class ResidualSpace(ElasticSpace):
    """Three residual blocks that may be narrow or skipped, an exit after the second."""

    num_classes = CLASSES

    def __init__(self, kernel: int = 3) -> None:
        decisions = [Decision("exit", (2, BLOCKS))]
        for i in range(BLOCKS):
            reached = Condition("exit", (BLOCKS,)) if i == 2 else None
            decisions.append(Decision(f"blocks.{i}.run", (False, True), reached))
            runs = Condition(f"blocks.{i}.run", (True,))
            decisions.append(Decision(f"blocks.{i}.width", (3, 6, HIDDEN), runs))
        super().__init__(decisions, input_shape=(CHANNELS, 8, 8))
        self.kernel = kernel

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        units: list[Unit] = []
        for i in range(BLOCKS):
            units.append(Residual(f"blocks.{i}", self.kernel))
            if i >= 1:
                units.append(Head(f"exits.{i + 1}", Condition("exit", (i + 1,))))
        return units


@pytest.fixture(scope="module", params=[1, 3])
def model(request: pytest.FixtureRequest) -> ElasticModel:
    torch.manual_seed(0)
    return ResidualSpace(request.param).build()


def images(count: int, seed: int) -> Tensor:
    """Smooth ones: neighbours resemble each other, and channels too, as in a network."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.randn(count, 2, 4, 4, generator=generator)
    mixing = torch.randn(CHANNELS, 2, generator=torch.Generator().manual_seed(1))
    return nn.functional.interpolate(torch.einsum("oc,ncyx->noyx", mixing, coarse), size=(8, 8))


NARROW = {f"blocks.{i}.width": 3 for i in range(BLOCKS)}
SKIPPED = {"blocks.1.run": False}


@torch.no_grad()
def distance(model: ElasticModel, path: dict, own: object, x: Tensor) -> float:
    """Mean squared distance of a path's logits from those of the full path to the same exit."""
    exit_ = model.space.canonical(path)["exit"]
    with model.active({"exit": exit_}):
        full = model(x)
    with model.active(path, own):  # type: ignore[arg-type]
        return float((model(x) - full).square().mean())


@pytest.mark.parametrize(
    "path", [NARROW, SKIPPED, NARROW | SKIPPED, {"exit": 2, **NARROW}, {"blocks.0.run": False}]
)
def test_a_repaired_path_lands_nearer_to_the_full_one_on_new_images(
    model: ElasticModel, path: dict
) -> None:
    canonical = model.space.canonical(path)
    own = Repair(model, images(200, 0))([canonical])[canonical]
    new = images(100, 7)
    assert distance(model, path, own, new) < 0.5 * distance(model, path, None, new)


def test_the_full_path_to_each_exit_needs_nothing(model: ElasticModel) -> None:
    full, early = model.space.full, model.space.canonical({"exit": 2})
    assert Repair(model, images(20, 0))([full, early]) == {}


def test_units_before_the_first_difference_are_left_alone(model: ElasticModel) -> None:
    path = model.space.canonical({"blocks.1.width": 3})
    tensors = Repair(model, images(20, 0))([path])[path].tensors
    assert {name.split(".")[1] for name in tensors} == {"blocks_1", "blocks_2", "exits_3"}


def test_what_a_path_gets_does_not_depend_on_the_paths_beside_it(model: ElasticModel) -> None:
    torch.manual_seed(0)
    paths = [
        model.space.canonical(path)
        for path in (NARROW, NARROW | {"blocks.2.width": 6}, SKIPPED, {"blocks.0.run": False})
    ]
    together = Repair(model, images(40, 0))(paths)
    for path in paths:
        alone = Repair(model, images(40, 0))([path])[path]
        assert alone.tensors.keys() == together[path].tensors.keys()
        for name, tensor in alone.tensors.items():
            torch.testing.assert_close(tensor, together[path].tensors[name])


def test_paths_share_the_solutions_of_a_common_prefix(model: ElasticModel) -> None:
    first, second = (model.space.canonical(NARROW | {"blocks.2.width": width}) for width in (3, 6))
    own = Repair(model, images(40, 0))([first, second])
    name = "units.blocks_1.conv2.weight"
    assert own[first].tensors[name] is own[second].tensors[name]
    steps = [model.steps(path, own[path]) for path in (first, second)]
    assert steps[0][:2] == steps[1][:2] and steps[0][2] != steps[1][2]


def test_steps_that_all_paths_share_run_once_and_change_nothing(model: ElasticModel) -> None:
    paths = [
        model.space.canonical({"blocks.2.width": 3}),
        model.space.canonical({"blocks.1.width": 6}),
    ]
    runs: list[int] = []
    hook = model.chain[0].register_forward_hook(lambda *_: runs.append(1))
    every_time = Repair(model, images(40, 0))
    expected = [every_time(paths), every_time(paths)]
    often = len(runs)
    once = Repair(model, images(40, 0), settled=1)
    found = [once(paths), once(paths)]
    hook.remove()
    assert len(runs) - often == 2  # as the full model, and to start from
    for path in paths:
        for name, tensor in expected[1][path].tensors.items():
            assert torch.equal(tensor, found[1][path].tensors[name])


def test_the_model_is_left_as_it_was(model: ElasticModel) -> None:
    before = copy.deepcopy(model.state_dict())
    model.train()
    Repair(model, images(20, 0))([model.space.smallest])
    assert model.training and all(unit.training for unit in model.chain)
    model.eval()
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_an_extracted_path_runs_as_the_repaired_one_with_the_parameters_that_were_priced(
    model: ElasticModel,
) -> None:
    path, x = model.space.canonical(NARROW | SKIPPED), images(30, 0)
    own = Repair(model, x)([path])[path]
    static = model.extract(path, repair=x).eval()
    with model.active(path, own), torch.no_grad():
        torch.testing.assert_close(static(x), model(x), rtol=1e-4, atol=1e-5)
    plain = model.extract(path)
    assert sum(p.numel() for p in static.parameters()) == sum(p.numel() for p in plain.parameters())


def test_a_solved_layer_is_the_least_squares_one() -> None:
    torch.manual_seed(0)
    space = ResidualSpace(1)
    model = space.build()
    path, x = space.canonical({"blocks.0.run": False}), images(400, 0)
    own = Repair(model, x)([path])[path].tensors
    block = model.chain[1]
    with torch.no_grad():
        full = block(model.chain[0](x, {"blocks.0.width": HIDDEN}), {"blocks.1.width": HIDDEN})
        hidden = block.conv1(x).relu()
        rows = hidden.movedim(1, -1).flatten(0, 2).double()
        scale = block.norm.weight / (block.norm.running_var + block.norm.eps).sqrt()
        shift = block.norm.bias - scale * block.norm.running_mean
        target = (full - x).movedim(1, -1).flatten(0, 2).double()
        design = torch.cat([rows, torch.ones(len(rows), 1)], 1)
        solution = torch.linalg.lstsq(design, target).solution
        best = (design @ solution - target).square().mean()
        weight = own["units.blocks_1.conv2.weight"].flatten(1).double()
        bias = own["units.blocks_1.conv2.bias"].double()
        reached = (rows @ weight.T + bias) * scale + shift
    assert (reached - target).square().mean() < 1.01 * best


def test_patches_are_what_a_convolution_reads() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 9, 7)
    for options in (
        {"stride": 2, "padding": 1},
        {"padding": "same"},
        {"dilation": 2, "padding": (2, 1)},
    ):
        conv = ElasticConv2d(4, 3, (3, 3), **options)  # type: ignore[arg-type]
        call = Call.of(conv, (x,), {})
        result = conv(x)
        assert call.positions == result[:, 0].numel()
        rows = torch.arange(call.positions)
        expected = call.at(result, rows)
        found = call.inputs(rows) @ conv.weight.flatten(1).T + conv.bias
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_regression_leaves_alone_what_it_can_learn_nothing_about() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs, noise = (torch.randn(60, n, generator=generator) for n in (40, 8))
    held = torch.arange(60) >= 48
    delta, shift = regress(inputs, noise - noise[held].mean(0), held)
    assert not delta.any() and not shift.any()


def test_regression_finds_a_linear_gap_through_constant_and_doubled_inputs() -> None:
    generator = torch.Generator().manual_seed(0)
    inputs = torch.randn(400, 6, generator=generator)
    inputs[:, 1], inputs[:, 2] = inputs[:, 0], 3.0
    truth = torch.randn(2, 6, generator=generator)
    gap = inputs @ truth.T + 1.0
    delta, shift = regress(inputs, gap, torch.arange(400) >= 320, shares=(1e-6, 1e-3))
    torch.testing.assert_close(inputs @ delta.T + shift, gap, rtol=1e-2, atol=1e-2)


def test_one_image_is_too_few(model: ElasticModel) -> None:
    with pytest.raises(InvalidValueError, match="at least two images, but got 1"):
        Repair(model, images(1, 0))


def test_a_model_whose_units_read_no_narrowed_channels_is_not_repairable() -> None:
    from tests.pipeline.normalised_space import NormalisedSpace

    assert not repairable(NormalisedSpace().build())
    assert repairable(ResidualSpace().build())


def test_normalisations_that_a_solved_layer_feeds_keep_the_full_models_statistics() -> None:
    torch.manual_seed(0)
    model = ResidualSpace().build()
    path = model.space.canonical(NARROW)
    tensors = Repair(model, images(40, 0), measure=True)([path])[path].tensors
    assert tensors and not any("norm" in name for name in tensors)


class Shrink(Unit):
    """Images at a share of their size: nothing that weights could make up for."""

    def __init__(self) -> None:
        super().__init__("shrink", decisions=("step",))

    def forward(self, state: State, choice: Choice) -> State:
        return state[..., :: int(choice["step"]), :: int(choice["step"])]

    def extract(self, choice: Choice) -> nn.Module:
        raise NotImplementedError


class ShrinkingSpace(ResidualSpace):
    """The residual blocks on images of two sizes."""

    def __init__(self) -> None:
        super().__init__()
        sized = Decision("step", (2, 1))
        ElasticSpace.__init__(self, [sized, *self.decisions], input_shape=self.input_shape)

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        return [Shrink(), *super().units(checkpoint)]


def test_smaller_images_are_repaired_for_the_full_model_on_images_as_small() -> None:
    torch.manual_seed(0)
    model = ShrinkingSpace().build()
    small, large, unchanged = (
        model.space.canonical(path) for path in (NARROW | {"step": 2}, NARROW, {"step": 2})
    )
    own = Repair(model, images(200, 0))([small, large, unchanged])
    assert own.keys() == {small, large}
    new = images(100, 7)
    with torch.no_grad(), model.active(unchanged):
        full = model(new)
    far = []
    for tensors in (None, own[small]):
        with torch.no_grad(), model.active(small, tensors):
            far.append(float((model(new) - full).square().mean()))
    assert far[1] < 0.5 * far[0]


def test_positions_with_keys_land_where_the_full_models_of_the_same_keys_do() -> None:
    torch.manual_seed(0)
    layer = ElasticLinear(4, 3)
    x, skip = torch.randn(10, 6, 4), torch.randn(10, 6, 3)

    def call(keys: Tensor) -> Call:
        """Of the positions of these keys."""
        named = {"x": x.gather(1, keys[..., None].expand(-1, -1, 4))}
        onto = Onto(skip.gather(1, keys[..., None].expand(-1, -1, 3)), keys=keys)
        return Call.of(layer, (), {**named, "onto": onto})

    targets = Targets(set(), seed=0)
    full = call(torch.arange(6).expand(10, -1))
    targets.note(full, layer(x), torch.ones(3))
    chosen = torch.stack([torch.randperm(6)[:4] for _ in range(10)])
    path = call(chosen)
    target = targets.of(path)
    assert target is not None and len(target.rows) == target.positions == 40
    assert path.onto is not None
    stream = path.onto.stream() + layer(path.x)
    torch.testing.assert_close(target.stream, path.at(stream, target.rows))
    assert target.held.sum() == 8  # those of the last two images
    assert targets.of(Call.of(layer, (path.x,), {"onto": Onto(skip, keys=chosen + 6)})) is None
