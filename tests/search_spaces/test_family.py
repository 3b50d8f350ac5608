"""Several models in one search: two SegFormers small enough for tests."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import SegformerForSemanticSegmentation

import search_spaces
from paretopath.calibration.importance import sort_by_magnitude
from paretopath.cost.table import CostTable
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.errors import InvalidValueError
from search_spaces.family import FamilySpace, member_path
from search_spaces.pretrained import PretrainedSpace
from search_spaces.vit import VitSpace
from tests.pipeline.vit_family import vit_family
from tests.search_spaces.space_contract import MacsOnly, SpaceContract
from tests.search_spaces.test_vit import timm_state

WIDTHS: Mapping[str, tuple[int, ...]] = {"wide": (8, 16, 24, 32), "slim": (8, 8, 12, 16)}


def entry(name: str, **options: Any) -> dict[str, Any]:
    arguments = {
        "depths": (1, 1, 1, 1),
        "hidden_sizes": WIDTHS[name],
        "num_attention_heads": (1, 2, 3, 4),
        "decoder_hidden_size": 16,
    }
    shared = {"variant": None, "image_size": (64, 96), "num_classes": 5}
    return {"space": "segformer", "options": {**shared, "arguments": arguments, **options}}


def family(**members: Mapping[str, Any]) -> ElasticSpace:
    return FamilySpace(members=members or {name: entry(name) for name in WIDTHS})


def fullest(model: ElasticModel) -> ElasticModel:
    return model.parts()[-1]


def costs_rise_within_each_member(space: ElasticSpace) -> None:
    """Another model is another set of decisions; it is dearer when all are full."""
    assert isinstance(space, FamilySpace)
    table = CostTable(space, MacsOnly())
    rng = np.random.default_rng(2)
    for member in space.members:
        base = space.canonical({**space.sample(rng), "model": member})
        for name in [name for name in base if name != "model"][::6]:
            values = space[name].distinct
            costs = table([space.canonical({**base, name: value}) for value in values])
            assert (np.diff(costs.macs) >= 0).all(), name
    full = table([space.canonical({"model": member}) for member in space.members])
    assert (np.diff(full.macs) > 0).all()


class TestFamily(SpaceContract):
    params_may_fall = frozenset(f"{name}.decoder.form" for name in WIDTHS)

    @pytest.fixture(scope="class")
    def space(self) -> ElasticSpace:
        return family()

    def reference(self, model: ElasticModel) -> Callable[[torch.Tensor], torch.Tensor]:
        wide = fullest(model)
        assert isinstance(wide.space, PretrainedSpace)
        reference = wide.space.reference()
        reference.load_state_dict(wide.space.original_state(wide))
        return lambda images: reference(images).logits

    def test_cost_never_falls_towards_fuller_values(self, space: ElasticSpace) -> None:
        costs_rise_within_each_member(space)


class TestVitFamily(SpaceContract):
    """Models with early exits of their own."""

    @pytest.fixture(scope="class")
    def space(self) -> ElasticSpace:
        return vit_family()

    def reference(self, model: ElasticModel) -> Callable[[torch.Tensor], torch.Tensor]:
        member = fullest(model)
        assert isinstance(member.space, VitSpace)
        original = member.space.reference()
        original.load_state_dict(timm_state(member, original))
        return original

    def test_cost_never_falls_towards_fuller_values(self, space: ElasticSpace) -> None:
        costs_rise_within_each_member(space)


def test_a_family_has_the_paths_of_its_members() -> None:
    space = family()
    assert isinstance(space, FamilySpace)
    assert list(space.members) == ["slim", "wide"]  # by cost, not as written
    assert space.size == sum(member.size for member in space.members.values())
    slim = space.members["slim"]
    path = space.canonical({"model": "slim", "slim.decoder.width": 0.5})
    assert member_path(path) == slim.canonical({"decoder.width": 0.5})
    assert not [name for name in path if name.startswith("wide.")]
    assert space.full["model"] == "wide" and space.smallest["model"] == "slim"


def test_paths_of_a_member_run_extract_and_cost_as_in_its_own_space() -> None:
    space = family()
    assert isinstance(space, FamilySpace)
    torch.manual_seed(0)
    model = space.build()
    slim = model.parts()[0]
    images = torch.randn(2, *space.input_shape)
    rng = np.random.default_rng(0)
    table, own_table = CostTable(space, MacsOnly()), CostTable(slim.space, MacsOnly())  # type: ignore[arg-type]
    for _ in range(3):
        path = space.canonical({**space.sample(rng), "model": "slim"})
        with torch.inference_mode(), model.active(path), slim.active(member_path(path)):
            torch.testing.assert_close(model(images), slim(images))
        assert table([path]).row(0) == own_table([member_path(path)]).row(0)
    full = model.extract({"model": "slim"})
    assert isinstance(full, SegformerForSemanticSegmentation)


def test_each_member_loads_its_own_weights(tmp_path: Path) -> None:
    space = family()
    assert isinstance(space, FamilySpace)
    originals = {}
    for name, member in space.members.items():
        assert isinstance(member, PretrainedSpace)
        originals[name] = member.reference()
        originals[name].save_pretrained(tmp_path / name)
    images = torch.randn(1, *space.input_shape)
    by_name = {name: str(tmp_path / name) for name in originals}
    for model in (space.build(by_name), space.build(f"{tmp_path}/{{model}}")):
        for name, original in originals.items():
            with torch.inference_mode(), model.active({"model": name}):
                torch.testing.assert_close(
                    model(images), original(images).logits, rtol=1e-5, atol=1e-5
                )


def test_parts_are_calibrated_in_place() -> None:
    torch.manual_seed(0)
    model = family().build()
    images = torch.randn(1, 3, 64, 96)
    narrow = {"model": "slim", "slim.decoder.form": "as_published", "slim.decoder.width": 0.25}

    @torch.inference_mode()
    def outputs() -> list[torch.Tensor]:
        found = []
        for path in ({"model": "slim"}, narrow):
            with model.active(path):
                found.append(model(images))
        return found

    full, narrowed = outputs()
    for part in model.parts():
        sort_by_magnitude(part)
    full_after, narrowed_after = outputs()
    torch.testing.assert_close(full_after, full, rtol=1e-4, atol=1e-5)
    assert not torch.allclose(narrowed_after, narrowed)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"a.b": entry("slim")}, "without a dot"),
        ({"a": {"options": {}}}, "with space and options"),
        ({"a": {**entry("slim"), "weight": "x"}}, "has no 'weight'"),
        ({"a": entry("slim"), "b": entry("wide", num_classes=6)}, "must have one num_classes"),
        ({"a": entry("slim"), "b": entry("wide", image_size=64)}, "must have one input_shape"),
    ],
)
def test_members_must_be_of_one_kind(members: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidValueError, match=message):
        FamilySpace(members=members)


def test_weights_must_be_for_each_member() -> None:
    space = family()
    with pytest.raises(InvalidValueError, match="none for 'slim'"):
        space.build({"wide": "x"})
    with pytest.raises(InvalidValueError, match="no 'broad'"):
        space.build({"broad": "x"})
    with pytest.raises(InvalidValueError, match="by its name"):
        space.build("somewhere/segformer")
    with pytest.raises(InvalidValueError, match="the space is one model"):
        search_spaces.create("segformer", image_size=64).build({"b0": "x"})
