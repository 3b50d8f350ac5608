"""The file of a front: what it holds, older ones, damaged ones; policies in it."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from paretopath.errors import InvalidValueError, RunDirectoryError
from paretopath.front import (
    DynamicPoint,
    Front,
    Policy,
    Retrained,
    SplitResult,
    policies_within,
    select,
)
from paretopath.paths import ExecutionPath
from tests.pipeline.front.example_fronts import BENT


def test_front_survives_its_file(tmp_path: Path, bent: Front) -> None:
    modes = {"separate": Retrained(0.8, 0.02, 0.79, 0.02), "shared": Retrained(0.82, 0.01)}
    full = bent.updated([replace(bent.points[0], retrained=modes, test_accuracy=0.4)])
    full.save(tmp_path / "front.json")
    loaded = Front.load(tmp_path / "front.json")
    assert loaded == full
    assert loaded.recipe == full.recipe
    assert loaded.points[0].retrained == modes
    assert isinstance(loaded.points[0].path, ExecutionPath)
    values = loaded.points[1].path
    assert (values["merged"], values["exit"]) == (True, 1)
    assert isinstance(values["merged"], bool)


def test_file_is_as_documented(tmp_path: Path, bent: Front) -> None:
    bent.save(tmp_path / "front.json")
    content = json.loads((tmp_path / "front.json").read_text())
    assert content["schema"] == 3
    assert content["recipe"] == {"space": {"name": "vit"}, "seed": 0}
    assert content["hardware"] == "magnet-16nm"
    energies = [p["energy_mj"] for p in content["points"]]
    assert energies == sorted(energies)
    assert len(energies) == len(BENT)
    first = content["points"][0]
    assert first["id"] == bent.points[0].id
    assert first["path"] == {"exit": 0, "blocks.0.mlp_ratio": 0.5, "merged": True}
    assert first["retrained_accuracy"] is None
    wanted = "accuracy accuracy_error samples energy_mj latency_ms macs params test_accuracy"
    assert set(wanted.split()) <= set(first)


def test_a_file_older_than_a_cost_opens_without_it(tmp_path: Path, bent: Front) -> None:
    bent.save(tmp_path / "front.json")
    content = json.loads((tmp_path / "front.json").read_text())
    for record in (content["full"], *content["points"]):
        assert record.pop("activation_bytes") is None
        del record["weight_bytes"]
    del content["sha256"]  # no older than the costs
    (tmp_path / "front.json").write_text(json.dumps(content))
    found = Front.load(tmp_path / "front.json")
    assert found == bent
    assert found.full.activation_bytes is None and found.full.cost("weight_bytes") is None
    found.save_csv(tmp_path / "front.csv", found.points)
    header, first, *_ = (tmp_path / "front.csv").read_text().splitlines()
    assert dict(zip(header.split(","), first.split(","), strict=True))["activation_bytes"] == ""


def dynamic_point(path: ExecutionPath, **changes: Any) -> DynamicPoint:
    """A path that four in five images leave early."""
    came_to = SplitResult(0.8, 0.01, 0.002, 0.004, 500, (0.8, 0.2), (0.9, None), 1.4, 0.01)
    policy = Policy("margin", ("exits.1", "exits.3"), (0.7,), (1.25,))
    costs = {"energy_mj": 1.4, "macs": 50, "params": 60}
    return replace(DynamicPoint(path, "searched", policy, costs, 0.006, came_to), **changes)


def test_policies_are_kept_in_the_file(tmp_path: Path, bent: Front) -> None:
    cheap = dynamic_point(bent.points[0].path, test=dynamic_point(bent.full.path).validation)
    dear = dynamic_point(bent.full.path, costs={"energy_mj": 2.0, "macs": 70})
    front = bent.with_policies([dear, cheap])
    assert front.policies == (cheap, dear)
    front.save(tmp_path / "front.json")
    loaded = Front.load(tmp_path / "front.json")
    assert loaded == front
    assert isinstance(loaded.policies[0].path, ExecutionPath)
    assert loaded.policies[0].id == cheap.id != dear.id


def test_a_file_of_before_policies_opens_without_any(tmp_path: Path, bent: Front) -> None:
    bent.save(tmp_path / "front.json")
    content = json.loads((tmp_path / "front.json").read_text())
    assert content.pop("policies") == content.pop("early_only") == []
    content["schema"] = 1
    del content["sha256"]
    (tmp_path / "front.json").write_text(json.dumps(content))
    assert Front.load(tmp_path / "front.json") == bent


def test_paths_that_a_policy_alone_makes_worth_it_are_named_but_no_points(
    tmp_path: Path, bent: Front
) -> None:
    beaten = replace(bent.points[0], path=ExecutionPath({"exit": 2, "dear": True}))
    front = bent.with_early_only([beaten, bent.points[1], bent.full])
    assert front.early_only == (beaten,) and front.points == bent.points
    front.save(tmp_path / "front.json")
    assert Front.load(tmp_path / "front.json") == front
    assert select(front, f"id={beaten.id}") == [beaten]
    assert beaten not in select(front, "all")
    better = replace(beaten, retrained={"shared": Retrained(0.9, 0.01)})
    assert front.updated([better]).early_only == (better,)


def test_a_policy_is_chosen_by_what_may_be_lost_or_by_energy(bent: Front) -> None:
    losses = {1.0: 0.05, 1.4: 0.006, 2.0: -0.001}
    front = bent.with_policies(
        dynamic_point(bent.full.path, costs={"energy_mj": e, "macs": 1}, promised_loss=loss)
        for e, loss in losses.items()
    )

    def energy(**bound: Any) -> float | None:
        (point,) = policies_within(front, **bound)
        return point.cost("energy_mj")

    assert [energy(max_loss=points) for points in (0, 0.6, 0.7, 100)] == [2.0, 1.4, 1.4, 1.0]
    assert [energy(energy_budget=f"{mj}mJ") for mj in (1, 1.5, 9)] == [1.0, 1.4, 2.0]
    assert len(policies_within(front)) == 3
    with pytest.raises(InvalidValueError, match="budget of 900 µJ of energy; the cheapest takes 1"):
        energy(energy_budget="0.9mJ")
    with pytest.raises(InvalidValueError, match=r"must lie in \[0, 100\] points, but got -1"):
        energy(max_loss=-1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"thresholds": (0.5, 0.6)}, "thresholds must be 1 finite numbers"),
        ({"thresholds": (math.nan,)}, "thresholds must be 1 finite numbers"),
        ({"temperatures": (0.0,)}, "temperatures must be over 0"),
        ({"exits": ("exits.1", "exits.1")}, "exits must be distinct"),
    ],
)
def test_policies_that_cannot_be_are_refused(changes: Any, message: str) -> None:
    policy = Policy("margin", ("exits.1", "exits.3"), (0.7,), (1.25,))
    with pytest.raises(InvalidValueError, match=message):
        replace(policy, **changes)


def damage(content: Any, place: str, value: Any) -> None:
    """Sets content["points"][0]["macs"] for ``points.0.macs``; ``...`` deletes it."""
    *parents, last = [int(k) if k.isdecimal() else k for k in place.split(".")]
    for key in parents:
        content = content[key]
    if value is ...:
        del content[last]
    else:
        content[last] = value


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("schema", 4, "must have schema 1 to 3, but has 4"),
        ("schema", ..., "must have schema 1 to 3, but has None"),
        ("hardware", ..., "hardware is missing"),
        ("points.2.macs", ..., r"points\[2\].macs is missing"),
        ("points.0.macs", "many", r"points\[0\].macs: .* but got 'many'"),
        ("points.0.accuracy", None, r"points\[0\].accuracy: .* but got None"),
        ("points.1.energy_mj", math.nan, r"points\[1\]: energy_mj must be finite"),
        ("points.1.energy_mj", 0.5, "must rise in energy_mj"),
        ("points.0.path", [1], r"points\[0\].path: a path must map decisions"),
        ("points.0.path.exit", 7, r"points\[0\].id must be '\w+', which follows"),
        ("points.0.retrained_accuracy", 0.9, r"points\[0\].retrained_accuracy must be None"),
        ("full", ..., "full is missing"),
        ("full.samples", 1.5, "full.samples: .* but got 1.5"),
        ("full.id", ..., "full.id is missing"),
        ("cost", "energy", "'energy' is not a cost; .*did you mean 'energy_mj'"),
        ("points", {}, "points: .* but got {}"),
    ],
)
def test_a_wrong_file_is_one_clear_sentence(
    tmp_path: Path, bent: Front, place: str, value: Any, message: str
) -> None:
    file = tmp_path / "front.json"
    bent.save(file)
    content = json.loads(file.read_text())
    damage(content, place, value)
    file.write_text(json.dumps(content))
    with pytest.raises(RunDirectoryError, match=message) as caught:
        Front.load(file)
    assert "front.json" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_absent_or_cut_short_says_so(tmp_path: Path, bent: Front) -> None:
    with pytest.raises(RunDirectoryError, match=r"can't read the front .*No such file"):
        Front.load(tmp_path / "front.json")
    bent.save(tmp_path / "front.json")
    text = (tmp_path / "front.json").read_text()
    (tmp_path / "front.json").write_text(text[: len(text) // 2])
    with pytest.raises(RunDirectoryError, match="is not valid JSON"):
        Front.load(tmp_path / "front.json")
