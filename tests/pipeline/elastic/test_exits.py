"""Exits by their conditions, in a family whose members have exits of their own."""

import pytest

from paretopath.elastic import ElasticModel
from paretopath.elastic.exits import exit_paths, exits_on_the_way
from paretopath.paths import Value
from tests.pipeline.vit_family import vit_family

SMALL = ["small.exits.1", "small.exits.2"]
LARGE = ["large.exits.1", "large.exits.2", "large.exits.4"]


@pytest.fixture(scope="module")
def model() -> ElasticModel:
    return vit_family().build()


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ({"model": "small"}, SMALL),
        ({"model": "large"}, LARGE),
        ({"model": "large", "large.exit": 2}, LARGE[:2]),
        ({"model": "small", "small.exit": 1}, SMALL[:1]),
        ({"model": "large", "large.blocks.0.run": False, "large.blocks.1.heads": 1}, LARGE),
    ],
)
def test_a_path_passes_the_exits_of_its_own_model_up_to_its_end(
    model: ElasticModel, path: dict[str, Value], expected: list[str]
) -> None:
    found = exits_on_the_way(model, path)
    assert [exit_.step.unit.name for exit_ in found] == expected
    assert found[-1].path == model.space.canonical(path)
    steps = model.steps(model.space.canonical(path))
    for exit_ in found:
        assert model.steps(exit_.path) == (*steps[: exit_.after], exit_.step)


def test_there_is_a_fullest_path_to_each_exit_of_each_member(model: ElasticModel) -> None:
    paths = exit_paths(model)
    assert paths[-1] == model.space.full
    ends = [model.steps(path)[-1].unit.name for path in paths]
    assert sorted(ends) == sorted(SMALL + LARGE)
    for path in paths:
        widths = [value for name, value in path.items() if name.endswith(".mlp_ratio")]
        assert set(widths) == {1.0}
