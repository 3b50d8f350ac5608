"""What `retrain` shows is of the mode that was asked for."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from paretopath.front import Retrained
from paretopath.quantities import percent
from paretopath.run import Run
from tests.pipeline.cli.command import run_here

BETTER = Retrained(0.999, 0.001, 0.998, 0.001)  # than two epochs make of anything


@pytest.mark.parametrize(("asked", "before"), [("separate", "shared"), ("shared", "separate")])
def test_a_retraining_shows_its_own_accuracies_where_another_mode_is_better(
    asked: str,
    before: str,
    searched: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = Run.open(shutil.copytree(searched, tmp_path / "run"), device="cpu")
    front = run.front()
    known = front.updated(replace(p, retrained={before: BETTER}) for p in front.points)
    known.save(run.front_file)
    arguments = ("retrain", run.directory, "--select", "knee", "--mode", asked, "--device", "cpu")
    assert run_here(*arguments) == 0
    out = capsys.readouterr().out
    made = [p for p in run.front().points if asked in p.retrained]
    for point in made:
        (line,) = (line for line in out.splitlines() if point.id in line)
        own = point.retrained[asked]
        assert percent(own.accuracy, own.error) in line
        assert percent(own.test_accuracy, own.test_error) in line
    assert asked in out and before not in out and percent(0.999, 0.001) not in out
    assert run_here(*arguments, "--json") == 0  # all is done: it is shown again
    content = json.loads(capsys.readouterr().out)
    assert content["mode"] == asked and len(content["points"]) >= len(made) >= 1
    for record in (content["full"], *content["points"]):
        own_or_none = record["retrained"].get(asked)
        assert record["retrained_mode"] == (asked if own_or_none else None)
        assert record["retrained_accuracy"] == (own_or_none and own_or_none["accuracy"])
    assert run_here("front", run.directory, "--json") == 0
    records = json.loads(capsys.readouterr().out)["points"]
    best = {record["id"]: record["retrained_mode"] for record in records}
    assert best[made[0].id] == before
