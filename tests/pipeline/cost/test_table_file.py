"""Costs that processes share through a file."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paretopath.cost import CostTable, create
from paretopath.cost.table_file import load_table, save_table
from paretopath.costs import COST_NAMES
from paretopath.elastic import ElasticSpace
from paretopath.elastic.registry import create_space

MODEL = {"depth": 3, "embed_dim": 32, "num_heads": 2, "patch_size": 4, "img_size": 16}
MODEL |= {"num_classes": 4}


@pytest.fixture(scope="module")
def space() -> ElasticSpace:
    return create_space("vit", model="vit_tiny_patch16_224", arguments=MODEL)


def table(space: ElasticSpace, preset: str = "magnet-16nm") -> CostTable:
    return CostTable(space, create("accelerator", preset=preset))


@pytest.fixture
def file(space: ElasticSpace, tmp_path: Path) -> Path:
    filled = table(space)
    filled.encoded(space.sample_encoded(np.random.default_rng(0), 40))
    save_table(filled, tmp_path / "costs.npz")
    return tmp_path / "costs.npz"


def test_rows_of_a_file_are_not_priced_again(
    space: ElasticSpace, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = space.sample_encoded(np.random.default_rng(0), 40)
    expected = table(space).encoded(paths)
    loaded = table(space)
    assert load_table(loaded, file)
    monkeypatch.setattr(loaded.cost_model, "unit_costs", lambda traces: pytest.fail("priced"))
    found = loaded.encoded(paths)
    for name in COST_NAMES:
        np.testing.assert_array_equal(found[name], expected[name])


def test_rows_of_other_hardware_are_left_out(space: ElasticSpace, file: Path) -> None:
    other = table(space, "eyeriss_like")
    assert not load_table(other, file)
    assert other([space.full]).energy_mj == table(space, "eyeriss_like")([space.full]).energy_mj


def test_rows_that_no_longer_hold_are_left_out(space: ElasticSpace, tmp_path: Path) -> None:
    changed = table(space)
    changed([space.full, space.smallest])
    forms = changed.forms().items()
    changed.add_forms({name: replace(found, costs=2 * found.costs) for name, found in forms})
    save_table(changed, tmp_path / "costs.npz")
    fresh = table(space)
    assert not load_table(fresh, tmp_path / "costs.npz")
    assert fresh([space.smallest]).energy_mj == table(space)([space.smallest]).energy_mj


@pytest.mark.parametrize("size", [0, 10, 2000, -1])
def test_a_file_cut_anywhere_is_left_out(space: ElasticSpace, file: Path, size: int) -> None:
    file.write_bytes(file.read_bytes()[:size])
    assert not load_table(table(space), file)
    file.unlink()
    assert not load_table(table(space), file)
