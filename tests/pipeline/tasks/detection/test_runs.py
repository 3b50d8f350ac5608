"""A detector of one's own on one's own images, the whole way."""

import base64
import io
import json

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from paretopath import DynamicModel, jobs
from paretopath.recipe import load_recipe
from paretopath.run import Run
from paretopath.showing.tracking.pictures import pictures_of
from tests.pipeline.tasks.detection.coco_files import write_scenes

RECIPE = {
    "name": "grid",
    "space": {
        "name": "tests.pipeline.tasks.detection.grid_detector:GridDetector",
        "options": {"width": 24},
    },
    "task": {"name": "detection"},
    "train": {"epochs": 5, "lr": 0.01, "warmup_epochs": 1},
    "calibration": {"images": 16, "repair": True},
    "search": {"trials": 6, "racing": {"shares": [0.5]}},
    "retrain": {"epochs": 1, "warmup_epochs": 0.5},
    "tracking": {"mode": "disabled"},
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A finished search over scenes of digits in COCO's format."""
    folder = tmp_path_factory.mktemp("grid")
    write_scenes(folder, {"train": 64, "validation": 24, "test": 16})
    data = {
        "source": "coco",
        "data_dir": ".",
        "data_files": {name: f"{name}.json" for name in ("train", "validation", "test")},
        "transforms": {"train": ["color_jitter"]},
        "batch_size": 16,
        "eval_batch_size": 8,
        "workers": 0,
    }
    (folder / "grid.yaml").write_text(yaml.safe_dump(RECIPE | {"data": data}))
    run = Run.start(folder / "run", load_recipe(folder / "grid.yaml"), device="cpu")
    jobs.prepare_weights(run)
    jobs.search_run(run)
    return run


def test_a_front_of_a_detector_holds_map_with_its_standard_error(run: Run) -> None:
    front = run.front()
    assert front.metric == "mAP"
    assert 0 < front.full.accuracy < 0.2  # after seconds of training
    assert 0 < front.full.accuracy_error < front.full.accuracy
    assert front.points[0].energy_mj < front.full.energy_mj


@pytest.mark.parametrize("mode", ["shared", "separate", "closed_form"])
def test_paths_of_a_detector_are_retrained(run: Run, mode: str) -> None:
    for job in jobs.plan_retraining(run, selection="count=1", mode=mode):
        jobs.collect(run, mode, jobs.retrain(run, job))
    assert any(mode in point.retrained for point in run.front().points)


def test_a_deployed_detector_gives_boxes_in_pixels_of_its_input(run: Run) -> None:
    dynamic = DynamicModel.load(run.directory)
    found = dynamic(torch.zeros(2, 3, 64, 64))
    assert found.predict().boxes.shape == (2, 64, 4)


def test_a_report_shows_images_with_the_boxes_of_its_paths(run: Run) -> None:
    front = run.front()
    pictures = json.loads(run.pictures_file.read_text())
    assert pictures["classes"] == list("0123456789")
    assert len(pictures["images"]) == 6
    paths = {point.id for point in (*front.points, front.full)}
    for image in pictures["images"]:
        assert image["size"] == [64, 64] and 3 <= len(image["truth"]) <= 6
        assert set(image["found"]) == paths
    values = [value for value in pictures["by_class"][front.full.id] if value is not None]
    mean = sum(values) / len(values)
    assert mean == pytest.approx(front.full.test_accuracy, abs=1e-9)
    with Image.open(io.BytesIO(base64.b64decode(pictures["images"][1]["png"]))) as drawn:
        original = Image.open(run.directory.parent / "validation" / "1.png")
        assert np.abs(np.array(drawn).astype(int) - np.array(original)).max() <= 1
    jobs.save_report(run)
    assert pictures["images"][0]["png"] in run.report_file.read_text()


def test_w_and_b_gets_images_with_what_is_there_and_what_is_found(run: Run) -> None:
    pictures, front = json.loads(run.pictures_file.read_text()), run.front()
    shown = pictures_of(pictures, front)["pictures"]
    assert len(shown) == 12
    drawn = shown[1]._boxes  # of the full path, on the first image
    first = pictures["images"][0]
    for name, marks in (("there", first["truth"]), ("found", first["found"][front.full.id])):
        boxes = [list(box["position"].values()) for box in drawn[name]._val]
        assert boxes == [mark["box"] for mark in marks]
