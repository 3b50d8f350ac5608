"""What a run records of where it ran."""

import os
import subprocess
from pathlib import Path

import pytest

from paretopath.run import environment


def test_the_commit_is_told_and_the_checkout_left_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def git(*arguments: str) -> None:
        own = ["-c", "user.name=a", "-c", "user.email=a@b"]
        subprocess.run(["git", *own, *arguments], cwd=tmp_path, check=True, capture_output=True)

    source = tmp_path / "source.py"
    source.write_text("1")
    git("init")
    git("add", "source.py")
    git("commit", "-m", "first")
    index = (tmp_path / ".git" / "index").read_bytes()
    monkeypatch.setattr(environment, "__file__", str(source))
    os.utime(source, (1, 1))  # git would write the new date into its index, and lock it for that
    commit = environment._git_hash()
    assert commit and len(commit) == 12
    source.write_text("2")
    assert environment._git_hash() == f"{commit}-dirty"
    assert (tmp_path / ".git" / "index").read_bytes() == index
