"""ZigZag as a cost model: its cache, and that the accelerator agrees with it."""

import json
from pathlib import Path

import numpy as np
import pytest

from paretopath.cost import create, mapper
from paretopath.errors import HardwareError, InvalidValueError, MissingExtraError
from paretopath.tracing import Layer

SMALL = Layer.conv(k=32, c=8, oy=4, ox=4)
DESIGNS = ("tpu_like", "meta_prototype")
OBJECTIVES = ("energy", "latency", "edp")


def _no_process(job: Path) -> None:
    raise AssertionError("ZigZag was run again")


@pytest.mark.parametrize("design", DESIGNS)
def test_zigzag_agrees_and_is_run_once_a_shape(
    design: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zigzag", reason="needs ZigZag: pip install 'paretopath[zigzag]'")
    linear = Layer.conv(k=32, c=8, oy=4, ox=4, kind="linear", operator="addmm")
    fused = Layer(kind="other", reads=512, writes=512, operations=512, operator="relu")
    layers = [SMALL, linear, fused]
    found = create("mapper", preset=design, cache_dir=tmp_path, workers=1).price(layers)

    ours = create("accelerator", preset=design).price(layers)
    np.testing.assert_allclose(ours.energy_mj, found.energy_mj, rtol=0.02)
    np.testing.assert_allclose(ours.latency_ms, found.latency_ms, rtol=0.05)
    np.testing.assert_allclose(ours.dram_bytes, found.dram_bytes, rtol=0.02)
    (file,) = tmp_path.rglob("*.json")  # one shape, whatever it is called
    assert set(json.loads(file.read_text())) == set(OBJECTIVES)

    monkeypatch.setattr(mapper, "_start", _no_process)
    again = create("mapper", preset=design, cache_dir=tmp_path).price(layers)
    for name in ("energy_mj", "latency_ms", "dram_bytes"):
        np.testing.assert_array_equal(again[name], found[name])
    with pytest.raises(AssertionError, match="run again"):  # other hardware has its own files
        create("mapper", preset="ascend_like", cache_dir=tmp_path).price(layers)


def test_an_interrupted_run_maps_only_what_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("zigzag", reason="needs ZigZag: pip install 'paretopath[zigzag]'")
    model = create("mapper", preset="tpu_like", cache_dir=tmp_path, workers=2)
    left = {"energy_pj": 2e9, "cycles": 3e6, "dram_bytes": 4.0}
    model.cache.mkdir(parents=True)
    model._file(SMALL).write_text(json.dumps(dict.fromkeys(OBJECTIVES, left)))
    jobs = []

    def listed(job: Path) -> None:
        jobs.append(json.loads(job.read_text()))
        raise InterruptedError

    monkeypatch.setattr(mapper, "_start", listed)
    other = Layer.conv(k=16, c=8, oy=4, ox=4)
    with pytest.raises(InterruptedError):
        model.price([other, SMALL, other])
    assert [Path(e["file"]) for job in jobs for e in job["entries"]] == [model._file(other)]
    costs = model.price([SMALL])
    assert (costs.energy_mj[0], costs.latency_ms[0], costs.dram_bytes[0]) == (2.0, 3.0, 4.0)


def test_a_layer_that_zigzag_could_not_map_is_named(tmp_path: Path) -> None:
    pytest.importorskip("zigzag", reason="needs ZigZag: pip install 'paretopath[zigzag]'")
    model = create("mapper", preset="tpu_like", cache_dir=tmp_path)
    model.cache.mkdir(parents=True)
    model._file(SMALL).write_text(json.dumps({"error": "ValueError: too large"}))
    with pytest.raises(
        HardwareError, match=r"can't map the .* to 32 channels.* on tpu_like: ValueError"
    ):
        model.price([SMALL])


def test_files_tell_shapes_apart(tmp_path: Path) -> None:
    pytest.importorskip("zigzag", reason="needs ZigZag: pip install 'paretopath[zigzag]'")
    model = create("mapper", preset="tpu_like", cache_dir=tmp_path)
    base = {"k": 32, "c": 32, "oy": 4, "ox": 4, "fy": 3, "fx": 3, "iy": 4, "ix": 4}
    changed = {"batch": 2, "k": 64, "c": 64, "oy": 5, "ox": 5, "fy": 1, "fx": 1, "iy": 6, "ix": 6}
    changed |= {"stride": 2, "groups": 2, "bits": 16, "weight_bits": 4}
    layers = [Layer.conv(**base), *(Layer.conv(**{**base, n: v}) for n, v in changed.items())]
    assert len({model._file(layer) for layer in layers}) == len(layers)


def test_at_least_one_worker_is_wanted() -> None:
    with pytest.raises(InvalidValueError, match="workers must be at least 1, got 0"):
        create("mapper", preset="tpu_like", workers=0)


def test_without_zigzag_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise mapper.PackageNotFoundError(name)

    monkeypatch.setattr(mapper, "version", absent)
    with pytest.raises(MissingExtraError, match=r"pip install 'paretopath\[zigzag\]'"):
        create("mapper", preset="tpu_like")
