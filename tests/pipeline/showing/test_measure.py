"""Whole paths measured, and predictions set against them; no figure depends on the machine."""

import json
from pathlib import Path

import numpy as np
import pytest
from plotly.offline import get_plotlyjs

import search_spaces
from paretopath.cost import create
from paretopath.cost.table import CostTable
from paretopath.elastic import ElasticSpace
from paretopath.errors import InvalidValueError, RunDirectoryError
from paretopath.showing.measure import (
    Measurement,
    Prediction,
    compare,
    draw,
    load_measured,
    measure_paths,
    predict,
    save_measurements,
)
from paretopath.showing.measure import write_html as write_comparison


@pytest.fixture
def space() -> ElasticSpace:
    arguments = {
        "img_size": 8,
        "patch_size": 2,
        "in_chans": 1,
        "embed_dim": 16,
        "depth": 4,
        "num_heads": 2,
        "num_classes": 10,
    }
    return search_spaces.create("vit", arguments=arguments)


def measured(*latencies: float) -> list[Measurement]:
    return [
        Measurement(f"path{i}", ms, 0.1, 1e3 / ms, None, batch_size=1, runs=9, interrupted=0)
        for i, ms in enumerate(latencies)
    ]


def test_each_path_is_measured_and_the_model_left_as_it_was(space: ElasticSpace) -> None:
    model = space.build()
    rng = np.random.default_rng(0)
    paths = [space.full, space.smallest, space.sample(rng)]
    before = model.path
    seen: list[tuple[int, int]] = []
    found = measure_paths(
        model,
        paths,
        threads=1,
        batch_size=3,
        rounds=2,
        energy=False,
        progress=lambda *counts: seen.append(counts),
    )
    assert [m.path_id for m in found] == [path.id for path in paths]
    for m in found:
        assert m.latency_ms > 0 and m.spread_ms >= 0 and m.runs >= 10
        assert m.images_per_s == pytest.approx(1e3 / m.latency_ms)
        assert m.energy_mj is None and m.batch_size == 3
    assert model.path == before
    assert seen == [(i, 6) for i in range(1, 7)]


def test_no_round_is_refused(space: ElasticSpace) -> None:
    with pytest.raises(InvalidValueError, match="rounds must be at least 1, got 0"):
        measure_paths(space.build(), [space.full], rounds=0)


def test_predictions_are_those_of_the_tables_and_macs_come_last(space: ElasticSpace) -> None:
    paths = [space.full, space.smallest]
    accelerator = create("accelerator", preset="magnet-16nm")
    first, macs = predict(space, paths, {"accelerator": accelerator})
    costs = CostTable(space, accelerator)(paths)
    assert (first.name, first.unit, first.absolute) == ("accelerator", "ms", False)
    np.testing.assert_allclose(first.values, costs.latency_ms)
    assert macs.name == "MACs"
    np.testing.assert_allclose(macs.values, costs.macs)


def test_agreement_is_by_rank_and_by_proportion() -> None:
    comparison = compare(
        measured(1.0, 2.0, 4.0, 8.0),
        [
            Prediction("device", "ms", (1.1, 2.2, 4.4, 8.8), absolute=True),
            Prediction("swapped", "ms", (2.0, 1.0, 4.0, 8.0)),
            Prediction("reversed", "G", (8.0, 4.0, 2.0, 1.0)),
        ],
        hardware="here",
    )
    device, swapped, turned = comparison.agreements
    assert device.spearman == pytest.approx(1)
    assert device.median_error == pytest.approx(0.1)
    assert device.scaled_error == pytest.approx(0) and device.worst_scaled_error < 1e-9
    assert swapped.spearman == pytest.approx(0.8) and swapped.median_error is None
    assert swapped.worst_scaled_error == pytest.approx(1)
    assert turned.spearman == pytest.approx(-1)


def test_the_comparison_is_plain_data() -> None:
    prediction = Prediction("MACs", "G", (0.5, 0.7))
    data = compare(measured(1.0, 2.0), [prediction], hardware="here").to_json()
    assert json.loads(json.dumps(data, allow_nan=False)) == data
    assert [row["predicted"]["MACs"] for row in data["paths"]] == [0.5, 0.7]
    assert data["paths"][1]["latency_ms"] == 2.0


def test_energy_that_was_not_measured_can_not_be_compared() -> None:
    with pytest.raises(InvalidValueError, match="all with a measured energy_mj, but got 0 of 2"):
        compare(measured(1.0, 2.0), [], hardware="here", quantity="energy_mj")


@pytest.mark.parametrize("values", [(1.0,), (1.0, float("nan")), (1.0, 0.0)])
def test_a_prediction_must_hold_a_value_for_each_path(values: tuple[float, ...]) -> None:
    with pytest.raises(InvalidValueError, match="'odd' must hold 2 finite values above 0"):
        compare(measured(1.0, 2.0), [Prediction("odd", "ms", values)], hardware="here")


def test_the_picture_has_a_panel_for_each_prediction(tmp_path: Path) -> None:
    comparison = compare(
        measured(1.0, 2.0, 4.0),
        [
            Prediction("device", "ms", (1.1, 2.2, 4.4), absolute=True),
            Prediction("MACs", "G", (0.1, 0.3, 0.2)),
        ],
        hardware="here",
    )
    figure = draw(comparison)
    titles = [annotation.text for annotation in figure.layout.annotations]
    assert titles == ["device: Spearman 1.000", "MACs: Spearman 0.500"]
    markers = [trace for trace in figure.data if trace.mode == "markers"]
    assert [list(trace.y) for trace in markers] == [[1.0, 2.0, 4.0]] * 2
    file = tmp_path / "measured.html"
    write_comparison(file, comparison)
    page = file.read_text(encoding="utf-8")
    assert get_plotlyjs() in page
    assert " src=" not in page.replace(get_plotlyjs(), "")


def latencies(file: Path) -> dict[str, float]:
    return {path: found.latency_ms for path, found in load_measured(file).items()}


def test_what_was_measured_is_kept_and_replaced_path_by_path(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    assert latencies(file) == {}
    save_measurements(file, "a CPU", measured(1.0, 2.0, 3.0))
    save_measurements(file, "a CPU", measured(9.0))
    assert latencies(file) == {"path0": 9.0, "path1": 2.0, "path2": 3.0}


def test_only_measurements_of_the_last_device_are_compared(tmp_path: Path) -> None:
    file = tmp_path / "measured.json"
    save_measurements(file, "a CPU", measured(1.0, 2.0))
    save_measurements(file, "a GPU", measured(0.1))
    assert latencies(file) == {"path0": 0.1}
    save_measurements(file, "a CPU", measured(4.0))
    assert latencies(file) == {"path0": 4.0, "path1": 2.0}


@pytest.mark.parametrize("text", ["[]", "{", '{"schema": 2}', '{"schema": 1, "measured": [{}]}'])
def test_another_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    file = tmp_path / "measured.json"
    file.write_text(text)
    with pytest.raises(RunDirectoryError, match=r"measured\.json must hold what .*measure"):
        load_measured(file)
