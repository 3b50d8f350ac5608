"""A search that several processes share."""

from pathlib import Path

import pytest

from pipeline.search import SearchSettings
from tests.pipeline.shared_search import SharedSearch, finish

STORAGES = ["journal", "sqlite"]


def url_of(storage: str, folder: Path) -> str | None:
    return None if storage == "journal" else f"sqlite:///{folder}/study.db"


@pytest.mark.parametrize("storage", STORAGES)
def test_three_workers_one_killed_in_mid_trial_end_with_exactly_the_trials_asked_for(
    tmp_path: Path, storage: str
) -> None:
    settings = SearchSettings(trials=60, seed=3)
    search = SharedSearch(tmp_path / "run", settings, url_of(storage, tmp_path))
    first, second, third = (search.start(name) for name in ("a", "b", "c"))
    lost = search.kill_in_trial(second, "b", after=4)
    finish(first, third)
    search.assert_complete(killed=["b"])
    assert len({worker for _, worker in search.events("end")}) == 3
    ended = [worker for path, worker in search.events("end") if path == lost]
    assert ended and ended[-1] in ("a", "c")
