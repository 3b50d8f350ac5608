"""Online, offline or off: what recipe, environment and login say."""

from pathlib import Path
from typing import Any

import pytest

from paretopath.recipe import Tracking as TrackingSettings
from paretopath.showing.report import ReportRun
from paretopath.showing.tracking import NullTracking, WandbTracking, open_tracking
from paretopath.showing.tracking.mode import has_key, wanted_mode
from tests.pipeline.showing.tracking.tracked import WHOLE_S, objective_of
from tests.pipeline.showing.wandb_file import read_runs


@pytest.mark.parametrize(
    ("setting", "environ", "mode"),
    [
        ("auto", {}, "auto"),
        ("online", {}, "online"),
        ("auto", {"WANDB_MODE": "online"}, "online"),
        ("online", {"WANDB_MODE": "offline"}, "offline"),
        ("online", {"WANDB_MODE": "dryrun"}, "offline"),
        ("offline", {"WANDB_MODE": "disabled"}, "disabled"),
        ("disabled", {"WANDB_MODE": "online"}, "disabled"),
        ("online", {"WANDB_DISABLED": "true"}, "disabled"),
        ("offline", {"WANDB_MODE": "nonsense"}, "offline"),
    ],
)
def test_mode_follows_recipe_and_environment(setting: Any, environ: Any, mode: str) -> None:
    assert wanted_mode(setting, environ) == mode


def test_a_key_may_be_a_variable_or_a_login(tmp_path: Path) -> None:
    server = "https://api.wandb.ai"
    assert not has_key(server, {}, tmp_path)
    assert has_key(server, {"WANDB_API_KEY": "k"}, tmp_path)
    (tmp_path / ".netrc").write_text("machine api.wandb.ai\n  login user\n  password secret\n")
    assert has_key(server, {}, tmp_path)
    assert not has_key("https://wandb.example.com", {}, tmp_path)
    (tmp_path / "other").write_text("machine wandb.example.com login user password secret\n")
    assert has_key("https://wandb.example.com", {"NETRC": str(tmp_path / "other")}, tmp_path)
    (tmp_path / "broken").write_text("machine\n???")
    assert not has_key(server, {"NETRC": str(tmp_path / "broken")}, tmp_path)


def test_disabled_tracks_nothing(tmp_path: Path, run: ReportRun) -> None:
    with open_tracking(tmp_path, TrackingSettings(mode="disabled")) as tracking:
        tracker = tracking.start("search", "search", config={}, objective=objective_of(run))
        tracker.trials(run.trials)
        tracker.show(run.front, run.trials)
        tracker.log({"a": 1.0}, step=0)
        tracker.summarize({})
        tracker.finish()
    assert isinstance(tracking, NullTracking)
    assert list(tmp_path.iterdir()) == []


def test_auto_without_a_key_is_offline_and_says_how_to_upload(tmp_path: Path) -> None:
    tracking = open_tracking(tmp_path, TrackingSettings())
    tracking.start("search", "search", config={})
    tracking.close()
    assert isinstance(tracking, WandbTracking)
    assert tracking.wait(WHOLE_S)
    (found,) = read_runs(tmp_path)
    assert found.group == tmp_path.name
    assert any(f"wandb sync {tmp_path}/wandb/offline-run-*" in note for note in tracking.notes)
