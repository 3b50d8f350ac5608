"""A search whose workers are jobs of a SLURM array and whose study is in PostgreSQL."""

import os
import secrets
import signal
import time
from pathlib import Path

import pytest

from paretopath.launch import Call, launch, states
from paretopath.recipe import Launch
from paretopath.search import SearchSettings
from tests.cluster.postgresql import PostgreSQL
from tests.cluster.slurm import Slurm
from tests.pipeline.search.shared_search import SharedSearch, run_job, wait_until

SETTINGS = {"where": "slurm", "cpus_per_task": 1, "time_minutes": 10, "retries": 1}


@pytest.mark.timeout(400)
def test_four_array_workers_finish_200_trials_though_two_are_killed(
    slurm: Slurm, postgresql: PostgreSQL, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    settings = SearchSettings(trials=200, sampler="random")
    url = postgresql.create_database(f"test_{secrets.token_hex(4)}")
    search = SharedSearch(folder, settings, url)
    calls = [Call(run_job, (str(folder), settings, 0.2))] * 4
    launched = Launch.model_validate(SETTINGS)
    jobs = launch(calls, launched, folder=folder / "workers", name="search")
    wait_until(lambda: len({worker for _, worker in search.events("begin")}) == 4, 200)
    for job in jobs[:2]:  # in mid-trial, as they sleep nearly all of the time
        for process in slurm.processes(job.id):
            os.kill(process, signal.SIGKILL)
    end = time.monotonic() + 300
    while not all(state.has_ended for state in states(jobs)):
        assert time.monotonic() < end, states(jobs)
        time.sleep(0.5)
    assert [state.state for state in states(jobs)[2:]] == ["done", "done"]
    finished = [trial for trial in search.trials() if trial.state.is_finished()]
    assert len(finished) == len(search.trials()) == 200
    assert len({trial.path for trial in finished}) == 200
    ended = [path for path, _ in search.events("end")]
    assert len(set(ended)) == 200 and len(search.events("begin")) - 200 <= 4
