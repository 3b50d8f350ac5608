"""Costs measured on this machine: no figure is asserted that depends on how fast it is."""

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from torch import nn

import search_spaces
from paretopath.cost.device import DeviceCostModel
from paretopath.cost.device_setup import Setup
from paretopath.cost.materials import random_module, random_state
from paretopath.cost.meter import EnergyMeter, find_meter
from paretopath.cost.operators import kind_of, time_kinds
from paretopath.cost.stopwatch import Effort, Sample, summarise
from paretopath.cost.table import CostTable
from paretopath.elastic import ElasticSpace
from paretopath.errors import InvalidValueError, ParetopathError, RunDirectoryError
from paretopath.tracing import UnitTrace, build_on_meta, trace_units

QUICK = Effort(min_runs=3, max_runs=5)


def tiny_vit() -> ElasticSpace:
    arguments = {
        "img_size": 8,
        "patch_size": 2,
        "in_chans": 1,
        "embed_dim": 16,
        "depth": 4,
        "num_heads": 2,
        "num_classes": 10,
    }
    return search_spaces.create("vit", arguments=arguments, mlp_ratios=[0.5, 1.0])


def tiny_ofa() -> ElasticSpace:
    return search_spaces.create("ofa_resnet50", resolutions=[32], num_classes=10)


def traces_of(space: ElasticSpace) -> list[UnitTrace]:
    return trace_units(build_on_meta(space), space.full)


def quick_model(folder: Path, **options: object) -> DeviceCostModel:
    given = {"threads": 1, "energy": False, "effort": QUICK, "cache_dir": folder} | options
    return DeviceCostModel(**given)  # type: ignore[arg-type]


@pytest.mark.parametrize("make", [tiny_vit, tiny_ofa])
def test_every_unit_is_measured_and_what_is_not_measured_is_nan(make, tmp_path: Path) -> None:
    traces = traces_of(make())
    costs = quick_model(tmp_path).unit_costs(traces)
    assert costs.latency_ms.shape == (len(traces),)
    assert np.isfinite(costs.latency_ms).all() and costs.latency_ms.max() > 0
    assert np.isnan(costs.energy_mj).all() and np.isnan(costs.dram_bytes).all()


def test_a_path_costs_the_sum_of_its_units(tmp_path: Path) -> None:
    space = tiny_vit()
    table = CostTable(space, quick_model(tmp_path))
    units = table.breakdown(space.full)
    total = table([space.full]).latency_ms[0]
    assert total == pytest.approx(sum(unit.costs["latency_ms"] for unit in units), rel=1e-9)


def test_a_form_is_measured_once_for_all_units_that_show_it(tmp_path: Path) -> None:
    model = quick_model(tmp_path)
    found = model.measure(traces_of(tiny_vit()))
    assert len(found) == 6  # stem, four blocks alike, exit
    assert len(set(found[1:5])) == 1
    assert len(model.cache.load()) == 3


def test_results_are_kept_and_another_model_reads_them(tmp_path: Path) -> None:
    traces = traces_of(tiny_vit())
    first = quick_model(tmp_path).unit_costs(traces)
    rings: list[tuple[int, int]] = []
    second = quick_model(tmp_path, progress=lambda *seen: rings.append(seen)).unit_costs(traces)
    np.testing.assert_array_equal(first.latency_ms, second.latency_ms)
    assert rings == []


def test_an_interrupted_measurement_goes_on_where_it_stopped(tmp_path: Path) -> None:
    space = tiny_vit()
    model = build_on_meta(space)
    paths = [space.full, space.smallest, space.canonical({"blocks.0.mlp_ratio": 0.5})]
    traces = [trace for path in paths for trace in trace_units(model, path)]

    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quick_model(tmp_path, progress=stop).measure(traces)
    kept = quick_model(tmp_path).cache.load()
    whole = quick_model(tmp_path)
    whole.measure(traces)
    finished = whole.cache.load()
    assert 0 < len(kept)
    assert {key: finished[key] for key in kept} == kept


def test_progress_ends_when_every_form_is_measured(tmp_path: Path) -> None:
    space = tiny_ofa()
    model = build_on_meta(space)
    rng = np.random.default_rng(0)
    traces = [t for _ in range(2) for t in trace_units(model, space.sample(rng))]
    seen: list[tuple[int, int]] = []
    measured = quick_model(tmp_path, progress=lambda *counts: seen.append(counts))
    measured.measure(traces)
    forms = len(measured.cache.load())
    assert len(seen) > 1 and seen[-1] == (forms, forms)
    assert all(total == forms for _, total in seen)


def test_another_setup_has_a_file_of_its_own(tmp_path: Path) -> None:
    traces = traces_of(tiny_vit())
    for options in ({}, {"batch_size": 2}, {"precision": "bfloat16"}, {"channels_last": True}):
        quick_model(tmp_path, **options).measure(traces)
    files = sorted(tmp_path.glob("*.json"))
    assert len(files) == 4
    setups = [json.loads(file.read_text())["setup"] for file in files]
    assert all(setup["torch"] == torch.__version__ and setup["name"] for setup in setups)


def test_costs_are_for_one_image_of_a_batch(tmp_path: Path) -> None:
    traces = traces_of(tiny_vit())
    model = quick_model(tmp_path, batch_size=4)
    costs = model.unit_costs(traces)
    batches = [found.latency_ms for found in model.measure(traces)]
    np.testing.assert_allclose(costs.latency_ms * 4, batches)
    assert "batch 4" in model.hardware


def test_a_broken_cache_names_its_file(tmp_path: Path) -> None:
    model = quick_model(tmp_path)
    model.cache.file.write_text('{"schema": 1, "entries": {"a": {"unit": "stem"}}}')
    with pytest.raises(RunDirectoryError, match=model.cache.file.name):
        model.measure(traces_of(tiny_vit()))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"device": "cqu"}, "there is no device 'cqu'.*did you mean 'cpu'"),
        ({"device": "cuda:99"}, "'cuda:99' is not here"),
        ({"device": "meta"}, "there is no device 'meta'"),
        ({"threads": 0}, "threads must be a whole number of at least 1, got 0"),
        ({"batch_size": 1.5}, "batch_size must be a whole number"),
        ({"precision": "float61"}, "no precision 'float61'.*did you mean 'float16'"),
    ],
)
def test_options_outside_their_values_are_refused(options, message: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match=message):
        quick_model(tmp_path, **options)


@pytest.mark.skipif(
    find_meter(torch.device("cpu")) is not None, reason="this CPU reports its energy"
)
def test_asking_for_energy_where_there_is_no_meter_says_so(tmp_path: Path) -> None:
    with pytest.raises(ParetopathError, match="Zeus"):
        quick_model(tmp_path, energy=True)


class Counter:
    """An energy counter that rises by ``joules`` from window to window."""

    def __init__(self, joules: float) -> None:
        self.joules = joules

    def begin_window(self, name: str) -> None:
        pass

    def end_window(self, name: str) -> SimpleNamespace:
        return SimpleNamespace(cpu_energy={0: self.joules}, dram_energy=None, gpu_energy={})


def test_energy_is_the_window_shared_among_its_runs() -> None:
    runs: list[None] = []
    meter = EnergyMeter(Counter(3.0), torch.device("cpu"))
    energy = meter.energy_mj(lambda: runs.append(None), seconds=0.01)
    assert energy == pytest.approx(3000.0 / len(runs))


def test_a_counter_that_stands_still_gives_no_energy_rather_than_none_used() -> None:
    meter = EnergyMeter(Counter(0.0), torch.device("cpu"))
    assert math.isnan(meter.energy_mj(lambda: None, seconds=0.01))


def samples(*ms: float, interrupted: bool = False) -> list[Sample]:
    return [Sample(m, interrupted) for m in ms]


def test_interrupted_runs_do_not_count() -> None:
    timing = summarise([*samples(1, 2, 3, 4, 5), *samples(90, 95, 99, interrupted=True)])
    assert (timing.median_ms, timing.iqr_ms, timing.runs) == (3, 2, 5)
    assert timing.interrupted == pytest.approx(3 / 8)


def test_where_every_run_was_interrupted_the_fastest_count() -> None:
    timing = summarise(samples(*range(1, 41), interrupted=True))
    assert (timing.median_ms, timing.runs, timing.interrupted) == (3, 5, 1)


def test_the_standard_error_of_a_median_is_that_of_repeated_draws() -> None:
    rng = np.random.default_rng(0)
    draws = rng.normal(10, 1, size=(2000, 50))
    errors = [summarise(samples(*row)).relative_error for row in draws[:200]]
    assert np.mean(errors) == pytest.approx(np.median(draws, axis=1).std() / 10, rel=0.1)


def test_random_modules_are_whole_and_keep_what_was_real() -> None:
    with torch.device("meta"):
        module = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    module[0].register_buffer("real", torch.tensor([7, 8]))
    module[0].register_buffer("index", torch.empty(5, dtype=torch.long, device="meta"))
    module[1].plain = torch.empty(2, 2, device="meta")
    setup = Setup.of(threads=1)
    generator = torch.Generator().manual_seed(0)
    made = random_module(module, setup, generator)
    images = random_state(torch.empty(1, 3, 9, 9, device="meta"), setup, generator)
    out = made(images)
    assert out.isfinite().all() and 1e-3 < out.std() < 1e3
    assert made[0].real.tolist() == [7, 8] and made[0].index.tolist() == [0] * 5
    assert made[1].plain.device.type == "cpu"
    assert not made.training and not any(p.requires_grad for p in made.parameters())


def test_random_states_keep_their_structure_and_take_the_batch() -> None:
    state = {
        "tokens": torch.empty(1, 5, 2, device="meta"),
        "mask": torch.empty(1, 5, dtype=torch.bool, device="meta"),
        "windows": torch.empty(4, 3, device="meta"),
        "size": (2, 3),
    }
    made = random_state(state, Setup.of(threads=1, batch_size=3), torch.Generator())
    assert made["tokens"].shape == (3, 5, 2) and made["windows"].shape == (12, 3)
    assert made["mask"].all() and made["size"] == (2, 3)


def test_a_session_leaves_torch_as_it_was() -> None:
    before = torch.get_num_threads()
    with Setup.of(threads=before + 1, precision="bfloat16").session():
        assert torch.get_num_threads() == before + 1 and torch.is_autocast_enabled("cpu")
    assert torch.get_num_threads() == before and not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize(
    ("operator", "kind"),
    [
        ("convolution", "convolution"),
        ("cudnn_convolution", "convolution"),
        ("addmm", "linear"),
        ("bmm", "matmul"),
        ("_scaled_dot_product_flash_attention_for_cpu", "matmul"),
        ("native_layer_norm", "normalisation"),
        ("_native_batch_norm_legit_no_training", "normalisation"),
        ("gelu", "other"),
        ("clone", "other"),
    ],
)
def test_operators_have_the_kinds_that_tracing_gives_them(operator: str, kind: str) -> None:
    assert kind_of(operator) == kind


def test_kinds_that_do_not_run_take_no_time() -> None:
    chain: Sequence[nn.Module] = [nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)]
    times = time_kinds(chain, torch.randn(1, 3, 8, 8), Setup.of(threads=1), runs=3)
    assert times["convolution"] > 0 and times["linear"] > 0 and times["other"] > 0
    assert times["matmul"] == 0 and times["normalisation"] == 0


def test_a_precision_is_part_of_what_runs() -> None:
    seen: list[torch.dtype] = []

    class Probe(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            out = super().forward(x)
            seen.append(out.dtype)
            return out

    setup = Setup.of(threads=1, precision="bfloat16")
    time_kinds([Probe(4, 4)], torch.randn(1, 4), setup, runs=1)
    assert set(seen) == {torch.bfloat16}


def test_equal_gpus_share_results() -> None:
    setup = Setup.of(threads=1)
    assert "device" not in setup.describe()
    assert replace(setup, batch_size=2).describe() != setup.describe()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
@pytest.mark.parametrize("cuda_graphs", [True, False])
def test_a_gpu_is_measured_with_and_without_graphs(cuda_graphs: bool, tmp_path: Path) -> None:
    traces = traces_of(tiny_vit())
    model = quick_model(tmp_path, device="cuda", cuda_graphs=cuda_graphs)
    costs = model.unit_costs(traces)
    assert np.isfinite(costs.latency_ms).all() and (costs.latency_ms > 0).all()
    kinds = model.kind_latency_ms(traces)
    assert kinds["linear"] > 0 and kinds["convolution"] > 0
