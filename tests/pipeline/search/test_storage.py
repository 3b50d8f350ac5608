"""The batching journal: durable, whole or absent, an ordinary Optuna journal."""

import json
import os
import time
from pathlib import Path

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend

from paretopath.errors import RunDirectoryError
from paretopath.search.storage import JOURNAL, Journal, exclusive, open_storage
from tests.pipeline.processes import PROCESSES


def numbers(journal: Journal, start: int = 0) -> list[int]:
    return [log["n"] for log in journal.read_logs(start)]


def test_logs_come_back_in_order_from_any_number_on(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    assert numbers(journal) == []
    journal.append_logs([{"n": 0}, {"n": 1}])
    journal.append_logs([{"n": 2}])
    assert numbers(journal) == [0, 1, 2]
    assert numbers(journal, 2) == [2]
    assert numbers(journal, 3) == []
    assert numbers(Journal(tmp_path / JOURNAL), 1) == [1, 2]


def test_a_batch_is_one_write_and_one_flush(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    journal = Journal(tmp_path / JOURNAL)
    journal.append_logs([{"n": 0}])
    flushed: list[int] = []
    fsync = os.fsync
    monkeypatch.setattr(os, "fsync", lambda file: flushed.append(file) or fsync(file))
    with journal.batch():
        for n in range(1, 100):
            journal.append_logs([{"n": n}])
        assert numbers(journal, 98) == [98, 99]  # visible to the writer at once
        assert numbers(Journal(tmp_path / JOURNAL)) == [0]  # to others when it ends
    assert len(flushed) == 1
    assert numbers(Journal(tmp_path / JOURNAL)) == list(range(100))


def test_what_a_batch_holds_is_kept_when_its_block_fails(tmp_path: Path) -> None:
    journal = Journal(tmp_path / JOURNAL)
    with pytest.raises(KeyboardInterrupt), journal.batch():
        journal.append_logs([{"n": 0}])
        raise KeyboardInterrupt
    assert numbers(Journal(tmp_path / JOURNAL)) == [0]


@pytest.mark.parametrize("torn", [b"{", b'{"n": 2', b'{"n": 2}', b"x" * 10_000])
def test_an_unfinished_last_line_is_absent_and_then_cut_off(tmp_path: Path, torn: bytes) -> None:
    file = tmp_path / JOURNAL
    Journal(file).append_logs([{"n": 0}, {"n": 1}])
    with file.open("ab") as stream:
        stream.write(torn)
    journal = Journal(file)
    assert numbers(journal) == [0, 1]
    journal.append_logs([{"n": 2}])
    assert numbers(journal) == [0, 1, 2]
    assert [json.loads(line)["n"] for line in file.read_bytes().splitlines()] == [0, 1, 2]


def test_a_journal_that_is_only_an_unfinished_line_starts_anew(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_bytes(b'{"n"')
    journal = Journal(tmp_path / JOURNAL)
    journal.append_logs([{"n": 0}])
    assert numbers(journal) == [0]


def test_a_broken_line_is_an_error_that_names_it(tmp_path: Path) -> None:
    (tmp_path / JOURNAL).write_text('{"n": 0}\nnonsense\n{"n": 1}\n')
    with pytest.raises(RunDirectoryError, match=r"study\.journal, line 2: not a line of"):
        numbers(Journal(tmp_path / JOURNAL))


def write_batches(file: Path, first: int) -> None:
    journal = Journal(file)
    for block in range(20):
        with journal.batch():
            for _ in range(10):
                journal.append_logs([{"n": first + block}])


def test_batches_of_several_processes_do_not_mix(tmp_path: Path) -> None:
    file = tmp_path / JOURNAL
    writers = [PROCESSES.Process(target=write_batches, args=(file, n)) for n in (0, 100, 200)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    found = numbers(Journal(file))
    blocks = [found[i : i + 10] for i in range(0, len(found), 10)]
    assert all(len(set(block)) == 1 for block in blocks)
    starts = [block[0] for block in blocks]
    assert sorted(starts) == [*range(20), *range(100, 120), *range(200, 220)]


def test_optuna_reads_and_continues_the_journal(tmp_path: Path) -> None:
    storage = open_storage(tmp_path)
    with storage.batch():
        study = optuna.create_study(storage=storage.optuna, study_name="s")
        for x in (1.0, 3.0):
            study.add_trial(
                optuna.create_trial(
                    params={"x": x},
                    distributions={"x": optuna.distributions.FloatDistribution(0, 5)},
                    value=x,
                )
            )
    theirs = optuna.load_study(
        study_name="s", storage=JournalStorage(JournalFileBackend(str(tmp_path / JOURNAL)))
    )
    assert [trial.value for trial in theirs.trials] == [1.0, 3.0]
    theirs.optimize(lambda trial: trial.suggest_float("x", 0, 5), n_trials=1)
    assert len(study.trials) == 3


def hold(folder: Path) -> None:
    with exclusive(folder):
        (folder / "held").touch()
        time.sleep(60)


def test_a_run_directory_is_held_until_its_process_dies(tmp_path: Path) -> None:
    holder = PROCESSES.Process(target=hold, args=(tmp_path,))
    holder.start()
    try:
        while not (tmp_path / "held").exists() and holder.is_alive():
            time.sleep(0.005)
        with (
            pytest.raises(RunDirectoryError, match=f"only one search .* process {holder.pid} on"),
            exclusive(tmp_path),
        ):
            pass
    finally:
        holder.kill()
        holder.join()
    deadline = time.monotonic() + 10
    while True:
        try:
            with exclusive(tmp_path):
                return
        except RunDirectoryError:
            assert time.monotonic() < deadline
