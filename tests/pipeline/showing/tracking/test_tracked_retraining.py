"""Retrained paths in W&B, each epoch once, whatever was killed."""

from dataclasses import replace
from pathlib import Path

from paretopath.showing.report import ReportRun
from paretopath.showing.tracking import WandbTracking
from paretopath.showing.tracking.identity import forget_run, load_identity, save_identity
from paretopath.showing.tracking.offline import next_offline_step
from tests.pipeline.showing.tracking.tracked import WHOLE_S, opening_of, wait_for_a_name
from tests.pipeline.showing.wandb_file import read_runs


def test_retrained_paths_are_runs_of_the_searchs_group(tmp_path: Path, run: ReportRun) -> None:
    points = [p for p in run.front.points if p.retrained][:2]
    with WandbTracking(opening_of(tmp_path)) as tracking:
        trackers = [
            tracking.start("retrain", f"shared-{p.id}", config={"decisions": dict(p.path)})
            for p in points
        ]
        for epoch in range(3):
            for tracker in trackers:
                tracker.log({"loss": 1 / (epoch + 1), "accuracy": float("nan")}, step=epoch)
        for point, tracker in zip(points, trackers, strict=True):
            after = point.retrained_accuracy
            tracker.summarize({"accuracy": point.accuracy, "retrained_accuracy": after})
            tracker.finish()
    assert tracking.wait(WHOLE_S)
    found = {r.name.split("-")[-1]: r for r in read_runs(tmp_path)}
    assert set(found) == {p.id for p in points}
    for point in points:
        seen = found[point.id]
        assert (seen.group, seen.job_type) == (tmp_path.name, "retrain")
        assert seen.config["decisions"] == dict(point.path)
        assert [row["loss"] for row in seen.history] == [1, 1 / 2, 1 / 3]
        assert all("accuracy" not in row for row in seen.history)
        assert seen.summary["accuracy"] == point.accuracy
        assert seen.summary["retrained_accuracy"] == point.retrained_accuracy
        assert seen.exit_code == 0


def test_epochs_that_a_resumed_training_repeats_are_logged_once(tmp_path: Path) -> None:
    for epochs in (range(0, 4), range(2, 6)):
        tracking = WandbTracking(opening_of(tmp_path))
        tracker = tracking.start("retrain", "separate-3f2a", config={})
        for epoch in epochs:
            tracker.log({"loss": float(epoch)}, step=epoch)
        tracking.close()
        assert tracking.wait(WHOLE_S)
        wait_for_a_name()
    first, second = read_runs(tmp_path)
    assert first.id == second.id
    steps = [row["_step"] for row in (*first.history, *second.history)]
    assert steps == list(range(6))


def test_epochs_that_a_killed_process_had_not_written_are_logged_by_the_next(
    tmp_path: Path,
) -> None:
    for told, epochs in ((None, range(0, 3)), (5, range(0, 6))):
        if told is not None:  # as if more had been told than W&B had on disk when it was killed
            identity = load_identity(tmp_path, "separate-3f2a")
            assert identity.next_step == next_offline_step(tmp_path, identity.id) == 3
            save_identity(tmp_path, "separate-3f2a", replace(identity, next_step=told))
        tracking = WandbTracking(opening_of(tmp_path))
        tracker = tracking.start("retrain", "separate-3f2a", config={})
        for epoch in epochs:
            tracker.log({"loss": float(epoch)}, step=epoch)
        tracking.close()
        assert tracking.wait(WHOLE_S)
        wait_for_a_name()
    first, second = read_runs(tmp_path)
    assert first.id == second.id
    steps = [row["_step"] for row in (*first.history, *second.history)]
    assert steps == list(range(6))


def test_a_run_that_is_forgotten_begins_as_another(tmp_path: Path) -> None:
    first = load_identity(tmp_path, "separate-3f2a")
    assert load_identity(tmp_path, "separate-3f2a") == first
    forget_run(tmp_path, "separate-3f2a")
    forget_run(tmp_path, "never-begun")
    assert load_identity(tmp_path, "separate-3f2a").id != first.id
