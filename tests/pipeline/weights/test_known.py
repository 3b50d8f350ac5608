"""Published weights by name: downloads are checked, kept, and never half there."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from paretopath.errors import CheckpointError
from paretopath.weights.files import load_reference
from paretopath.weights.known import (
    FOLDER_VARIABLE,
    KnownCheckpoint,
    checkpoint_folder,
    fetch_checkpoint,
    known_checkpoints,
)

CONTENT = b"weights" * 1000


@pytest.fixture
def published(tmp_path: Path) -> Path:
    file = tmp_path / "published.pth"
    file.write_bytes(CONTENT)
    return file


def known(*urls: str) -> KnownCheckpoint:
    return KnownCheckpoint(
        description="test weights",
        file="weights.pth",
        urls=urls,
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
        licence="MIT",
        source="https://example.org",
        paper="https://example.org",
    )


def test_download_is_kept_and_not_repeated(published: Path, tmp_path: Path) -> None:
    checkpoint = known(published.as_uri())
    file = checkpoint.fetch(tmp_path / "kept")
    assert file == tmp_path / "kept" / "weights.pth" and file.read_bytes() == CONTENT
    published.unlink()
    assert checkpoint.fetch(tmp_path / "kept") == file


def test_the_next_url_is_tried_where_one_fails(published: Path, tmp_path: Path) -> None:
    missing = (tmp_path / "missing.pth").as_uri()
    assert known(missing, published.as_uri()).fetch(tmp_path / "kept").is_file()


def test_other_bytes_are_refused_and_not_kept(published: Path, tmp_path: Path) -> None:
    published.write_bytes(CONTENT[:-1])
    with pytest.raises(CheckpointError, match=r"must have the SHA-256 .*6999 of 7000 bytes"):
        known(published.as_uri()).fetch(tmp_path / "kept")
    assert not list((tmp_path / "kept").iterdir())


@pytest.mark.parametrize(("digits", "is_right"), [(8, True), (8, False), (7, True)])
def test_a_checksum_of_which_only_the_first_digits_were_published_is_checked(
    published: Path, tmp_path: Path, digits: int, is_right: bool
) -> None:
    whole = hashlib.sha256(CONTENT if is_right else b"").hexdigest()
    checkpoint = replace(known(published.as_uri()), sha256=whole[:digits], size_bytes=None)
    if is_right and digits == 8:
        assert checkpoint.fetch(tmp_path / "kept").is_file()
    else:
        with pytest.raises(CheckpointError, match=f"must have the SHA-256 {whole[:digits]}…, but"):
            checkpoint.fetch(tmp_path / "kept")


def test_a_file_put_there_by_hand_is_checked(tmp_path: Path) -> None:
    (tmp_path / "weights.pth").write_bytes(b"something else")
    with pytest.raises(CheckpointError, match="must have the SHA-256"):
        known("https://example.invalid/weights.pth").fetch(tmp_path)


def test_failed_download_says_where_to_put_the_file(tmp_path: Path) -> None:
    missing = (tmp_path / "missing.pth").as_uri()
    with pytest.raises(CheckpointError, match=r"put the file into .*kept by hand.*missing\.pth"):
        known(missing).fetch(tmp_path / "kept")


def test_listed_checkpoints_say_where_they_come_from() -> None:
    listed = known_checkpoints()
    assert {"ofa_resnet50", "ofa_resnet50_acc_predictor"} <= set(listed)
    for checkpoint in listed.values():
        assert len(bytes.fromhex(checkpoint.sha256)) in (4, 32)  # all, or what was published
        assert checkpoint.size_bytes is None or checkpoint.size_bytes > 0
        assert checkpoint.licence
        assert all(url.startswith("https://") for url in (*checkpoint.urls, checkpoint.source))


def test_unknown_name_is_an_error_with_the_nearest() -> None:
    with pytest.raises(CheckpointError, match="did you mean 'ofa_resnet50'"):
        fetch_checkpoint("ofa_resnet")


def test_folder_can_be_chosen(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    assert checkpoint_folder() == tmp_path


def test_models_load_by_known_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    # a file of the right name but other bytes: the name led there, and the file was checked
    (tmp_path / "ofa_supernet_resnet50.pth").write_bytes(b"")
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(CheckpointError, match=r"ofa_supernet_resnet50\.pth must have the SHA-256"):
        load_reference(nn.Linear(1, 1), "ofa_resnet50")


def test_names_that_mean_nothing_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"neither a hub id .* nor a known name"):
        load_reference(nn.Linear(1, 1), "ofa_resnet51")


def test_entries_are_renamed_before_they_are_matched(tmp_path: Path) -> None:
    model = nn.Linear(2, 2)
    torch.save({"w": torch.ones(2, 2), "bias": torch.zeros(2)}, tmp_path / "weights.pth")
    names = {"w": "weight"}
    load_reference(model, str(tmp_path / "weights.pth"), rename=lambda name: names.get(name, name))
    assert torch.equal(model.weight, torch.ones(2, 2))
