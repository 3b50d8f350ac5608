"""How commands end that can't do their work."""

import os
import re
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from paretopath.cli import faults
from paretopath.front import Front
from tests.pipeline.cli.command import run_here


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """A disk that is full once a file has so many bytes, for root too."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # Python would keep what it wrote of a module, and trip over it
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[0][1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before[0])
        sys.dont_write_bytecode = before[1]


def one_sentence(capsys: pytest.CaptureFixture[str]) -> str:
    written = capsys.readouterr().err
    assert "Traceback" not in written
    lines = [line for line in written.splitlines() if line.startswith("paretopath: ")]
    assert len(lines) == 1
    return lines[0]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", "{run}", "--device", "gpu"], "there is no device 'gpu'.*'cuda'"),
        (["evaluate", "{run}", "--device", "cuda:97"], "'cuda:97' is not here"),
        (["retrain", "{run}", "--device", "meta"], "there is no device 'meta'"),
        (["front", "{run}", "--html", "{run}"], "run can't be used: it is a folder"),
        (["front", "{run}", "--csv", "{run}"], "run can't be used: it is a folder"),
        (["measure", "{run}", "--html", "{run}/front.json/x.html"], "front.json can't be used"),
        (["front", "{run}", "--select", "count"], "count=N needs a whole number.*'count'"),
        (["retrain", "{run}", "--select", "budget=70"], "an amount with its unit.*'70'"),
        (["retrain", "{run}", "--mode", "sharde"], "--mode must be.*'sharde'.*'shared'"),
        (["front", "{run}", "--rescore", "maper"], "--rescore must be.*did you mean 'mapper'"),
        (["front", "{run}", "--cvs", "x"], "No such option: --cvs.*--csv"),
        (["fornt", "{run}"], "No such command 'fornt'.*'front'"),
    ],
)
def test_an_option_is_refused_at_the_door(
    arguments: list[str], words: str, searched: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_here(*[a.format(run=searched) for a in arguments]) == 2
    said = one_sentence(capsys)
    assert re.search(words, said), said


@pytest.mark.parametrize("size", [6_000, 20_000])
def test_a_disk_that_fills_up_ends_in_a_sentence_and_the_same_command_goes_on(
    size: int,
    tiny_recipe: Path,
    tmp_path: Path,
    searched: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """6 kB: in mid-training; 20 kB: in mid-search."""
    directory = tmp_path / "run"
    if size == 20_000:
        directory.mkdir()
        for file in searched.glob("weights*"):
            shutil.copy(file, directory)
    with files_up_to(size):
        assert run_here("search", tiny_recipe, "--run-dir", directory) == 2
    said = one_sentence(capsys)
    assert str(directory) in said and "goes on once there is room" in said
    assert not list(directory.rglob("*.tmp"))
    assert not list(directory.glob("failure-*"))
    assert run_here("search", tiny_recipe, "--run-dir", directory, "--json") == 0
    found, expected = Front.load(directory / "front.json"), Front.load(searched / "front.json")
    assert [p.path for p in found.points] == [p.path for p in expected.points]


def test_a_file_in_a_run_directorys_place_stays_and_is_named(
    tiny_recipe: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    taken = tmp_path / "run"
    taken.write_text("mine")
    for directory in (taken, taken / "below"):
        assert run_here("search", tiny_recipe, "--run-dir", directory) == 2
        assert f"{taken} can't be used: it stands where a folder" in one_sentence(capsys)
    assert taken.read_text() == "mine"


@pytest.mark.parametrize("arguments", [["retrain"], ["measure"], ["sensitivity"]])
def test_a_run_that_can_not_be_written_is_refused_before_anything_long(
    arguments: list[str],
    searched: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """As on a read-only disk; root may write into folders whose rights say otherwise."""

    def no_long_work(*_: object, **__: object) -> None:
        raise AssertionError("this takes long")

    for name in ("plan_retraining", "measure_run", "sensitivity_run"):
        monkeypatch.setattr(f"paretopath.jobs.{name}", no_long_work)
    with files_up_to(0):
        assert run_here(*arguments, searched) == 2
    assert f"{searched} can't be written" in one_sentence(capsys)


def test_what_nothing_foresaw_is_a_sentence_and_a_log(
    searched: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run = shutil.copytree(searched, tmp_path / "run")

    def fail(*_: object, **__: object) -> None:
        raise ZeroDivisionError("a library's\nown words")

    monkeypatch.setattr("paretopath.jobs.evaluate_run", fail)
    monkeypatch.delenv(faults.DEBUG, raising=False)
    assert run_here("evaluate", run) == 2
    said = one_sentence(capsys)
    assert "ZeroDivisionError: a library's own words" in said
    (log,) = run.glob("failure-*.log")
    assert str(log) in said
    written = log.read_text()
    assert "Traceback" in written and "in fail" in written and "paretopath 0." in written

    monkeypatch.setenv(faults.DEBUG, "1")
    assert run_here("evaluate", run) == 2
    shown = capsys.readouterr().err
    assert "Traceback" in shown and "in fail" in shown
    assert run_here("evaluate", tmp_path / "nowhere") == 2  # shown for foreseen ones too
    assert "Traceback" in capsys.readouterr().err


def test_a_failure_without_a_run_is_logged_in_the_temporary_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    text = faults.sentence(RuntimeError("odd"))
    (log,) = tmp_path.rglob("failure-*.log")
    assert text.endswith(str(log)) and "RuntimeError: odd" in log.read_text()


def test_an_error_that_a_library_made_of_a_full_disk_is_told_as_one() -> None:
    full = OSError(28, "No space left on device", "/data/x")
    wrapped = RuntimeError("enforce fail at inline_container.cc:603")
    wrapped.__cause__ = full
    assert "/data/x can't be written: no space is left" in faults.sentence(wrapped)


def test_who_reads_the_output_may_stop() -> None:
    code = "import sys; from paretopath.cli import faults; "
    for writing in ("print('x' * 100_000)", "print('x')", "rich.print('x ' * 1000)"):
        process = subprocess.Popen(
            [sys.executable, "-c", f"{code} import rich; sys.exit(faults.run(lambda: {writing}))"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert process.stdout and process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait() == faults.BROKEN_PIPE


def test_ctrl_c_is_one_line_and_130(
    searched: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "paretopath.jobs.evaluate_run", lambda *_, **__: signal.raise_signal(signal.SIGINT)
    )
    # a job in a shell's background is started with the signal ignored
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        assert run_here("evaluate", searched) == 130
    finally:
        signal.signal(signal.SIGINT, before)
    assert one_sentence(capsys) == ("paretopath: interrupted; the same command goes on from here")


def test_a_table_goes_into_a_pipe_or_a_device_and_replaces_neither(
    searched: Path, tmp_path: Path
) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    read: list[str] = []
    reader = threading.Thread(target=lambda: read.append(pipe.read_text()))
    reader.start()
    assert run_here("front", searched, "--csv", pipe, "--html", "/dev/null") == 0
    reader.join(timeout=10)
    assert read[0].splitlines()[0].startswith("id,")
    assert stat.S_ISFIFO(pipe.stat().st_mode) and stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_what_is_written_to_standard_output_leaves_the_shells_file_in_place(tmp_path: Path) -> None:
    code = (
        "from paretopath.files import write_atomically; print('before'); "
        "write_atomically('/dev/stdout', 'table\\n'); print('after')"
    )
    with open(tmp_path / "out.txt", "w") as out:
        subprocess.run([sys.executable, "-c", code], stdout=out, check=True)
    assert (tmp_path / "out.txt").read_text() == "before\ntable\nafter\n"


def test_version_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_here("--version") == 0
    assert capsys.readouterr().out.startswith("paretopath 0.")


def test_help_is_quick() -> None:
    done = subprocess.run(
        [sys.executable, "-c", "import sys, paretopath.cli.app; print(*sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert not {"torch", "numpy", "optuna", "pandas", "wandb"} & set(done.stdout.split())
