"""A finished search to track, and nobody's W&B account."""

import os
from pathlib import Path

import pytest

from paretopath.showing.report import ReportRun
from tests.pipeline.search.example_search import example_run


@pytest.fixture(scope="module")
def run() -> ReportRun:
    return example_run()


@pytest.fixture(autouse=True)
def no_account(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No key, no login and no variables of whoever runs the tests."""
    for name in list(os.environ):
        if name.startswith("WANDB_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path / "wandb-config"))
