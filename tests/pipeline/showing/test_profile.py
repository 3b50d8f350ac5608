"""Where a path's costs are."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

import search_spaces
from paretopath.cost import create
from paretopath.cost.device import DeviceCostModel
from paretopath.cost.model import Costs
from paretopath.cost.stopwatch import Effort
from paretopath.cost.table import CostTable
from paretopath.costs import COSTS, cost_named
from paretopath.showing.breakdown import Row
from paretopath.showing.profile import Profile, profile_path, write_html
from paretopath.tracing import KINDS, UnitTrace

SMALL = {
    "img_size": 8,
    "patch_size": 2,
    "in_chans": 1,
    "embed_dim": 16,
    "depth": 2,
    "num_heads": 2,
    "num_classes": 10,
}


class Opaque:
    """A cost model that prices whole units and knows no energy."""

    hardware = "box <1>"

    def unit_costs(self, traces: Sequence[UnitTrace]) -> Costs:
        nothing = np.full(len(traces), np.nan)
        return Costs(nothing, np.arange(1.0, len(traces) + 1), nothing)


def small_table(cost_model=None) -> CostTable:
    space = search_spaces.create("vit", arguments=SMALL)
    return CostTable(space, cost_model or create("accelerator", preset="magnet-16nm"))


def test_vit_base_has_the_published_macs_and_hardly_any_convolution() -> None:
    space = search_spaces.create("vit", model="vit_base_patch16_224")
    table = CostTable(space, create("accelerator", preset="magnet-16nm"))
    profile = profile_path(table, space.full)
    total = profile.total("macs")
    assert total is not None and total / 1e9 == pytest.approx(17.56, abs=0.005)
    shares = profile.shares(profile.by_kind, "macs")
    assert shares is not None and shares[KINDS.index("convolution")] == pytest.approx(
        0.0066, abs=5e-5
    )
    assert profile.total("params") == 86_567_656  # timm's vit_base_patch16_224


def test_kinds_and_units_add_up_to_the_path() -> None:
    table = small_table()
    profile = profile_path(table, table.space.full)
    costs = table([table.space.full])
    assert [row.name for row in profile.by_kind] == list(KINDS)
    assert [row.name for row in profile.by_unit] == ["stem", "blocks.0", "blocks.1", "exits.2"]
    for cost in COSTS:
        assert profile.total(cost.name) == pytest.approx(costs[cost.name][0], rel=1e-9)
        for rows in (profile.by_kind, profile.by_unit) if cost.is_sum else ():
            total = sum(row.costs[cost.name] for row in rows)
            assert total == pytest.approx(costs[cost.name][0], rel=1e-9)


def test_a_path_leaves_out_what_it_does_not_run() -> None:
    table = small_table()
    profile = profile_path(table, {"exit": 1})
    assert [row.name for row in profile.by_unit] == ["stem", "blocks.0", "exits.1"]
    assert profile.path_id == table.space.canonical({"exit": 1}).id


def test_a_measured_profile_times_operators_and_knows_no_energy(tmp_path: Path) -> None:
    model = DeviceCostModel(
        threads=1, energy=False, cache_dir=tmp_path, effort=Effort(min_runs=2, max_runs=2)
    )
    table = small_table(model)
    profile = profile_path(table, table.space.full)
    times = {row.name: row.costs["latency_ms"] for row in profile.by_kind}
    assert all(ms > 0 for ms in times.values())
    assert all("energy_mj" not in row.costs for row in (*profile.by_kind, *profile.by_unit))
    assert "timed while the path ran" in profile.notes[0]


def test_a_model_of_whole_units_leaves_the_kinds_open(tmp_path: Path) -> None:
    table = small_table(Opaque())
    profile = profile_path(table, table.space.full)
    assert profile.total("latency_ms") == 10 and profile.total("energy_mj") is None
    assert ["latency_ms" in row.costs for row in profile.by_kind] == [False] * len(KINDS)
    assert profile.shares(profile.by_kind, "latency_ms") is None
    assert profile.notes == ("box <1> prices whole units, not operators.",)
    data = profile.to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    shares, stem = data["by_unit"][0]["shares"], profile.by_unit[0].costs
    assert shares["energy_mj"] is None and shares["latency_ms"] == 0.1
    for name in ("macs", "params"):
        assert shares[name] == pytest.approx(stem[name] / profile.total(name))
    assert shares["activation_bytes"] is None  # the largest of the units', not their sum
    write_html(tmp_path / "opaque.html", profile)
    page = (tmp_path / "opaque.html").read_text(encoding="utf-8")
    assert "box &lt;1&gt;" in page and "box <1>" not in page


def test_the_page_opens_without_a_network_and_holds_every_row(tmp_path: Path) -> None:
    table = small_table()
    write_html(tmp_path / "profile.html", profile_path(table, table.space.full))
    page = (tmp_path / "profile.html").read_text(encoding="utf-8")
    own = page.replace(get_plotlyjs(), "")  # which holds addresses of map services as text
    assert len(own) < len(page) / 10
    assert " src=" not in own and " href=" not in own
    for name in (*KINDS, "blocks.1", "exits.2"):
        assert f"<td>{name}</td>" in page


@pytest.mark.parametrize(
    ("value", "name", "text"),
    [
        (17_563_828_224, "macs", "17.6 G"),
        (999, "macs", "999"),
        (0, "macs", "0"),
        (0.24, "energy_mj", "240 µJ"),
        (12.345, "latency_ms", "12.3 ms"),
        (999.96, "latency_ms", "1.00 s"),
        (None, "energy_mj", "–"),
    ],
)
def test_amounts_have_three_digits_and_a_unit(value: float | None, name: str, text: str) -> None:
    assert cost_named(name).text(value) == text


def test_shares_of_nothing_are_unknown() -> None:
    rows = (
        Row("a", {"macs": 0, "latency_ms": 1.0}),
        Row("b", {"macs": 0, "energy_mj": 2.0, "latency_ms": 3.0}),
    )
    profile = Profile("id", "here", rows, rows)
    assert profile.shares(rows, "macs") is None
    assert profile.shares(rows, "energy_mj") is None
    assert profile.shares(rows, "latency_ms") == [0.25, 0.75]
