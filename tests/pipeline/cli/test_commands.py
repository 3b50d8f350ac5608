"""The command line, run as a user runs it."""

import json
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paretopath.cli.app import main
from paretopath.front import Front
from paretopath.run import Run, build_space
from tests.pipeline.cli.command import run_here
from tests.pipeline.processes import PROCESSES


def run_main(*arguments: str | Path) -> None:
    """What a process of the command does."""
    sys.argv = ["paretopath", *map(str, arguments)]
    main()


def test_help_shows_every_command_and_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("--help") == 0
    shown = capsys.readouterr().out
    for name in ("profile", "search", "front", "retrain", "evaluate"):
        assert name in shown
    assert run_here("search", "--help") == 0
    assert "Example: paretopath search recipes/digits_vit.yaml" in capsys.readouterr().out


def test_a_process_that_can_not_do_its_work_ends_with_status_2_and_one_sentence(
    tmp_path: Path,
) -> None:
    code = "from paretopath.cli.app import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, "search", "no_such.yaml"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2 and not done.stdout
    assert "no_such.yaml" in done.stderr
    assert "Traceback" not in done.stderr and len(done.stderr.strip().splitlines()) == 1


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
    arguments: list[str],
    sentence: str,
    tiny_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_here(*[a.format(recipe=tiny_recipe) for a in arguments]) == 2
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert "Traceback" not in printed.err and len(printed.err.strip().splitlines()) == 1
    assert not printed.out


def test_a_wrong_key_names_file_line_field_and_the_nearest_legal_one(
    tiny_recipe: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    lines = tiny_recipe.read_text().replace("trials: 24", "trails: 24")
    tiny_recipe.write_text(lines)
    number = next(i for i, line in enumerate(lines.splitlines(), 1) if "trails" in line)
    assert run_here("search", tiny_recipe) == 2
    said = capsys.readouterr().err
    assert f"tiny.yaml:{number}" in said
    assert "trails" in said and "'trials'" in said


def test_front_as_json_is_one_object_on_standard_output(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here("front", searched, "--select", "count=2", "--json") == 0
    content = json.loads(capsys.readouterr().out)
    assert len(content["points"]) == 2
    assert content["points"][0]["energy_mj"] <= content["points"][1]["energy_mj"]
    assert {"id", "path", "accuracy", "accuracy_error", "samples", "retrained_accuracy"} <= set(
        content["points"][0]
    )


def test_a_wrong_selection_names_the_legal_ones(
    searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here("front", searched, "--select", "kne") == 2
    assert "knee" in capsys.readouterr().err


def test_front_writes_a_table_and_a_report(searched: Path, tmp_path: Path) -> None:
    table, page = tmp_path / "front.csv", tmp_path / "front.html"
    assert run_here("front", searched, "--csv", table, "--html", page) == 0
    front = Front.load(searched / "front.json")
    assert len(table.read_text().splitlines()) == 1 + len(front.points)
    assert front.points[0].id in page.read_text()


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
        process = PROCESSES.Process(target=run_main, args=arguments)
        process.start()
        journal = directory / "study.journal"
        size = journal.stat().st_size if journal.exists() else 0
        while process.is_alive() and not (journal.exists() and journal.stat().st_size > size):
            time.sleep(0.005)
        time.sleep(rng.random() * 0.3)
        process.kill()
        process.join()
        kills += process.exitcode == -signal.SIGKILL
        if process.exitcode == 0:
            break  # it was quicker than three kills
    assert run_here(*arguments, "--json") == 0
    run = Run.open(directory)
    trials = run.trials(build_space(run.recipe))
    assert len(trials) == 60 and len({t.path for t in trials}) == 60
    assert [t.number for t in trials] == list(range(60))
    front = Front.load(directory / "front.json")  # checks order and dominance
    assert {p.number for p in front.points} <= set(range(60))
    best = max(t.accuracy for t in trials if t.accuracy is not None)
    assert front.points[-1].accuracy == best
