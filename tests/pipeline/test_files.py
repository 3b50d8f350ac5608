"""Atomic writes: whole or not at all."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from paretopath.files import write_atomically


def test_writes_text_as_utf8_and_bytes_as_they_are(tmp_path: Path) -> None:
    write_atomically(tmp_path / "text", "µJ\r\n")
    write_atomically(str(tmp_path / "bytes"), b"\x00\xff")
    assert (tmp_path / "text").read_bytes() == "µJ\r\n".encode()
    assert (tmp_path / "bytes").read_bytes() == b"\x00\xff"


def test_makes_missing_folders_and_leaves_nothing_else_behind(tmp_path: Path) -> None:
    write_atomically(tmp_path / "a" / "b" / "file", "x")
    assert [p.name for p in (tmp_path / "a" / "b").iterdir()] == ["file"]


def test_replaces_old_content(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("a much longer old content")
    write_atomically(file, "new")
    assert file.read_text() == "new"


def test_follows_a_symbolic_link(tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    target.write_text("old")
    link.symlink_to(target)
    write_atomically(link, "new")
    assert link.is_symlink()
    assert target.read_text() == "new"


def test_gives_the_rights_of_the_umask(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_atomically(tmp_path / "file", "x")
    finally:
        os.umask(old)
    assert (tmp_path / "file").stat().st_mode & 0o777 == 0o640


def test_failure_keeps_the_old_file_and_no_temporary_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "file"
    file.write_text("old")

    def full_disk(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write_atomically(file, "new")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
    assert file.read_text() == "old"


def test_killed_writer_leaves_a_whole_file(tmp_path: Path) -> None:
    """kill -9 at any moment: what stands under the name is one writer's whole content."""
    file = tmp_path / "file"
    program = (
        "import sys; from paretopath.files import write_atomically\n"
        "for i in range(10**9): write_atomically(sys.argv[1], str(i % 10) * 1_000_000)"
    )
    for _ in range(3):
        writer = subprocess.Popen([sys.executable, "-c", program, str(file)])
        for _ in range(500):
            if file.exists():
                break
            time.sleep(0.01)
        time.sleep(0.05)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        content = file.read_text()
        assert len(content) == 1_000_000
        assert len(set(content)) == 1
