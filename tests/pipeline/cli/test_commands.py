"""The command line, run as a user runs it."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paretopath.front import Front
from paretopath.run import Run, build_space


def run_cli(*arguments: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """A finished process of the command."""
    return subprocess.run(
        command(*arguments), cwd=cwd, capture_output=True, text=True, timeout=110, env=environment()
    )


def command(*arguments: str | Path) -> list[str]:
    code = "from paretopath.cli.app import main; main()"
    return [sys.executable, "-c", code, *map(str, arguments)]


def environment() -> dict[str, str]:
    return {
        **os.environ,
        "WANDB_MODE": "disabled",
        "OMP_NUM_THREADS": "1",
        "CUDA_VISIBLE_DEVICES": "",
    }


def test_help_shows_every_command_and_an_example() -> None:
    out = run_cli("--help").stdout
    for name in ("profile", "search", "front", "retrain", "evaluate"):
        assert name in out
    assert (
        "Example: paretopath search recipes/digits_vit.yaml" in run_cli("search", "--help").stdout
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["search", "no_such.yaml"], "no_such.yaml"),
        (["front", "no_such_run"], "no_such_run is not a run directory"),
        (["search", "{recipe}", "--energy-budget", "70"], "--energy-budget"),
        (["search", "{recipe}", "--trials", "0"], "--trials"),
        (["profile", "{recipe}", "--path", "ful"], "full, smallest or a JSON file"),
    ],
)
def test_a_users_mistake_is_one_sentence_and_status_2(
    arguments: list[str], sentence: str, tiny_recipe: Path, tmp_path: Path
) -> None:
    done = run_cli(*[a.format(recipe=tiny_recipe) for a in arguments], cwd=tmp_path)
    assert done.returncode == 2
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1
    assert not done.stdout


def test_a_wrong_key_names_file_line_field_and_the_nearest_legal_one(
    tiny_recipe: Path, tmp_path: Path
) -> None:
    lines = tiny_recipe.read_text().replace("trials: 24", "trails: 24")
    tiny_recipe.write_text(lines)
    number = next(i for i, line in enumerate(lines.splitlines(), 1) if "trails" in line)
    done = run_cli("search", tiny_recipe, cwd=tmp_path)
    assert done.returncode == 2
    assert f"tiny.yaml:{number}" in done.stderr
    assert "trails" in done.stderr and "'trials'" in done.stderr


def test_front_as_json_is_one_object_on_standard_output(searched: Path) -> None:
    done = run_cli("front", searched, "--select", "count=2", "--json")
    content = json.loads(done.stdout)
    assert len(content["points"]) == 2
    assert content["points"][0]["energy_mj"] <= content["points"][1]["energy_mj"]
    assert {"id", "path", "accuracy", "accuracy_error", "samples", "retrained_accuracy"} <= set(
        content["points"][0]
    )


def test_a_wrong_selection_names_the_legal_ones(searched: Path) -> None:
    done = run_cli("front", searched, "--select", "kne")
    assert done.returncode == 2 and "knee" in done.stderr


def test_front_writes_a_table_and_a_report(searched: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "front.csv", tmp_path / "front.html"
    done = run_cli("front", searched, "--csv", table, "--html", page)
    assert done.returncode == 0, done.stderr
    front = Front.load(searched / "front.json")
    assert len(table.read_text().splitlines()) == 1 + len(front.points)
    assert front.points[0].id in page.read_text()


@pytest.mark.timeout(300)
def test_a_search_killed_three_times_ends_with_every_trial_once(
    tiny_recipe: Path, searched: Path, tmp_path: Path
) -> None:
    """``kill -9`` at random moments; 60 trials."""
    directory = tmp_path / "run"
    directory.mkdir()
    (directory / "weights.safetensors").write_bytes((searched / "weights.safetensors").read_bytes())
    arguments = ("search", tiny_recipe, "--run-dir", directory, "--trials", "60")
    rng = random.Random(0)
    kills = 0
    while kills < 3:
        process = subprocess.Popen(
            command(*arguments), env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        journal = directory / "study.journal"
        size = journal.stat().st_size if journal.exists() else 0
        while process.poll() is None and not (journal.exists() and journal.stat().st_size > size):
            time.sleep(0.005)
        time.sleep(rng.random() * 0.3)
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if process.returncode == 0:
            break  # it was quicker than three kills
    done = run_cli(*arguments, "--json")
    assert done.returncode == 0, done.stderr
    run = Run.open(directory)
    trials = run.trials(build_space(run.recipe))
    assert len(trials) == 60 and len({t.path for t in trials}) == 60
    assert [t.number for t in trials] == list(range(60))
    front = Front.load(directory / "front.json")  # checks order and dominance
    assert {p.number for p in front.points} <= set(range(60))
    best = max(t.accuracy for t in trials if t.accuracy is not None)
    assert front.points[-1].accuracy == best
