"""Hardware files: what is read, and the one sentence said of what can't be."""

import copy
import re
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from paretopath.cost import create
from paretopath.cost.design import load_design, read_preset
from paretopath.cost.zigzag_format import zigzag_accelerator, zigzag_mapping
from paretopath.errors import HardwareError
from paretopath.recipe.presets import preset_names
from paretopath.tracing import Layer

LAYERS = [
    Layer.conv(k=64, c=32, oy=14, ox=14, fy=3, fx=3, iy=14, ix=14),
    Layer.conv(k=100, c=48, oy=7, ox=7),
]
MAGNET = (resources.files("paretopath.cost") / "presets" / "magnet-16nm.yaml").read_text()
Change = Callable[[Any], Any]


def written(path: Path, content: Any) -> Path:
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def refusal(**files: Any) -> str:
    """The error's message, which must be one line."""
    with pytest.raises(HardwareError) as caught:
        load_design(**files)
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_file_prices_as_the_preset_that_it_copies(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(MAGNET)
    ours, preset = create(hardware=file), create(preset="magnet-16nm")
    for name in ("energy_mj", "latency_ms", "dram_bytes"):
        np.testing.assert_array_equal(ours.price(LAYERS)[name], preset.price(LAYERS)[name])


@pytest.mark.parametrize("preset", ["tpu_like", "edge_tpu_like", "tesla_npu_like", "ascend_like"])
def test_zigzags_files_price_as_the_design_that_they_describe(preset: str, tmp_path: Path) -> None:
    design = read_preset(preset)
    hardware = written(tmp_path / "hardware.yaml", zigzag_accelerator(design))
    mapping = written(tmp_path / "mapping.yaml", zigzag_mapping(design))
    read, known = create(hardware=hardware, mapping=mapping), create(preset=preset)
    np.testing.assert_allclose(read.price(LAYERS).energy_mj, known.price(LAYERS).energy_mj)
    np.testing.assert_allclose(read.price(LAYERS).latency_ms, known.price(LAYERS).latency_ms)


def test_an_unknown_preset_is_refused_with_the_nearest() -> None:
    message = refusal(preset="magnet")
    assert "there is no hardware preset 'magnet'" in message
    assert "did you mean 'magnet-16nm'?" in message and "tpu_like" in message


def test_either_a_preset_or_a_file_is_wanted() -> None:
    assert "give either a preset or a hardware file" in refusal()
    assert "give either a preset" in refusal(preset="tpu_like", hardware="mine.yaml")
    assert "a preset brings its mapping" in refusal(preset="tpu_like", mapping="mine.yaml")


def test_a_file_that_is_absent_is_named(tmp_path: Path) -> None:
    assert "absent.yaml: No such file" in refusal(hardware=tmp_path / "absent.yaml")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("a: [1", "is not YAML"),
        ("- a\n- b\n", "must hold a mapping of fields, got list"),
        (b"\xff\xfe\x00", "it is not text"),
    ],
)
def test_a_file_without_a_description_is_refused(
    content: str | bytes, said: str, tmp_path: Path
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    message = refusal(hardware=file)
    assert said in message and "mine.yaml" in message


def _renamed(data: Any) -> None:
    data["memories"][0]["size_bit"] = data["memories"][0].pop("size_bits")


def _unknown(data: Any) -> None:
    data["array"]["sistolic"] = []


def _negative(data: Any) -> None:
    data["array"]["mac_energy_pj"] = -1


def _text(data: Any) -> None:
    data["clock_mhz"] = "fast"


def _missing(data: Any) -> None:
    del data["vector_unit"]


def _no_such_dimension(data: Any) -> None:
    data["memories"][0]["serves"] = ["vectors"]


def _same_name(data: Any) -> None:
    data["memories"][0]["name"] = data["memories"][1]["name"]


def _narrow(data: Any) -> None:
    data["memories"][-1]["ports"][0]["max_bits"] = 8


def _no_port(data: Any) -> None:
    data["memories"][0]["ports"].pop()


def _no_loops(data: Any) -> None:
    del data["array"]["unrolling"]["lane"]


def _hertz(data: Any) -> None:
    data["clock_mhz"] = 1_000_000_000


def _gigahertz(data: Any) -> None:
    data["clock_mhz"] = 0.8


def _joules(data: Any) -> None:
    data["array"]["mac_energy_pj"] = 3.56e-14


def _femtojoules(data: Any) -> None:
    data["memories"][0]["read_energy_pj"] *= 1e5


def _gigabytes(data: Any) -> None:
    data["memories"][-1]["size_bits"] = 4


def _wide(data: Any) -> None:
    data["memories"][0]["ports"][0]["max_bits"] = 10**9


def _lanes(data: Any) -> None:
    data["vector_unit"]["lanes"] = 10**9


def _guard(data: Any) -> None:
    data["guard_bits"] = 8000


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_hertz, r"'clock_mhz': must be 1 to 20000 MHz, but got 1000000000; in Hz .* 1000 MHz"),
        (_gigahertz, r"'clock_mhz': must be .*, but got 0\.8; in GHz it would be 800 MHz"),
        (_joules, r"'array\.mac_energy_pj': must be .*, but got 3\.56e-14; in J .* 0\.0356 pJ"),
        (_femtojoules, r"read_energy_pj of 'weight_collector' of 128 bits must be .*; in fJ it"),
        (_gigabytes, r"size_bits of 'dram' must be .* bits, but got 4; in MB it would be 3.2e\+07"),
        (_wide, r"'memories\.0\.ports\.0\.max_bits': must be 1 to 1.04858e\+06 bits a cycle"),
        (_lanes, r"'vector_unit\.lanes': must be 1 to 1e\+06 units"),
        (_guard, r"'guard_bits': must be 1 to 64 bits"),
    ],
)
def test_a_number_that_was_meant_in_another_unit_is_refused(
    change: Change, said: str, tmp_path: Path
) -> None:
    data = yaml.safe_load(MAGNET)
    change(data)
    message = refusal(hardware=written(tmp_path / "mine.yaml", data))
    assert "mine.yaml" in message
    assert re.search(said, message), message


@pytest.mark.parametrize(
    ("field", "factor", "said"),
    [
        ("unit_energy", 1e3, r"operational_array\.unit_energy': must be .*; in fJ it would be"),
        ("r_cost", 1e4, r"r_cost of 'rf_128B' of 8 bits must be .* pJ a bit, .*; in fJ"),
        ("w_cost", 1e-9, r"w_cost of 'rf_128B' of 8 bits must be"),
        ("size", 1e12, r"size of 'rf_128B' must be 1 to 1e\+12 bits"),
    ],
)
def test_numbers_of_zigzags_files_are_checked_by_the_names_they_have_there(
    field: str, factor: float, said: str, tmp_path: Path
) -> None:
    design = read_preset("tpu_like")
    data = zigzag_accelerator(design)
    place = data["operational_array"] if field == "unit_energy" else data["memories"]["rf_128B"]
    place[field] = type(place[field])(place[field] * factor)
    message = refusal(
        hardware=written(tmp_path / "hardware.yaml", data),
        mapping=written(tmp_path / "mapping.yaml", zigzag_mapping(design)),
    )
    assert re.search(said, message), message


def test_a_key_given_twice_is_refused_with_both_lines(tmp_path: Path) -> None:
    ours = tmp_path / "ours.yaml"
    ours.write_text(MAGNET + "\nclock_mhz: 500\n")
    assert re.search(
        r"ours.yaml:\d+: a key must be given once, but 'clock_mhz' already stands on "
        r"line \d+",
        refusal(hardware=ours),
    )
    design = read_preset("tpu_like")
    hardware = written(tmp_path / "hardware.yaml", zigzag_accelerator(design))
    mapping = written(tmp_path / "mapping.yaml", zigzag_mapping(design))
    mapping.write_text(mapping.read_text() + "  name: other\n")
    assert "mapping.yaml:" in refusal(hardware=hardware, mapping=mapping)
    assert "'name' already stands on line 1" in refusal(hardware=hardware, mapping=mapping)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_renamed, r"there is no field 'memories\.0\.size_bit'; legal: .*did you mean 'size_bits'"),
        (_unknown, r"there is no field 'array\.sistolic'; legal: .*did you mean 'systolic'"),
        (_negative, r"field 'array\.mac_energy_pj': .*greater than or equal to 0, got -1"),
        (_text, r"field 'clock_mhz': .*valid number.*, got 'fast'"),
        (_missing, r"field 'vector_unit': Field required"),
        (_no_such_dimension, r"names the array dimension 'vectors'; .*did you mean 'vector'"),
        (_same_name, r"memories must have distinct names"),
        (_narrow, r"min_bits must not exceed max_bits, got 32 > 8"),
        (_no_port, r"memory 'weight_collector' has no port for 'W from_higher'"),
        (_no_loops, r"array dimension 'lane' needs either unrolling or choices"),
    ],
)
def test_a_wrong_field_is_named(change: Change, said: str, tmp_path: Path) -> None:
    data = yaml.safe_load(MAGNET)
    change(data)
    message = refusal(hardware=written(tmp_path / "mine.yaml", data))
    assert "mine.yaml" in message
    assert re.search(said, message), message


def test_zigzags_hardware_needs_its_mapping_and_ours_has_none(tmp_path: Path) -> None:
    design = read_preset("tpu_like")
    hardware = written(tmp_path / "hardware.yaml", zigzag_accelerator(design))
    mapping = written(tmp_path / "mapping.yaml", zigzag_mapping(design))
    assert "needs ZigZag's mapping file too" in refusal(hardware=hardware)
    ours = tmp_path / "ours.yaml"
    ours.write_text(MAGNET)
    assert "takes no mapping file" in refusal(hardware=ours, mapping=mapping)


def _without_memories(data: Any, mapping: Any) -> None:
    del data["memories"]


def _in_memory(data: Any, mapping: Any) -> None:
    data["operational_array"]["is_imc"] = True


def _sizes(data: Any, mapping: Any) -> None:
    data["operational_array"]["sizes"].pop()


def _extracted(data: Any, mapping: Any) -> None:
    next(iter(data["memories"].values()))["auto_cost_extraction"] = True


def _fixed_order(data: Any, mapping: Any) -> None:
    mapping[0]["temporal_ordering"] = [["C", 4]]


def _no_default(data: Any, mapping: Any) -> None:
    mapping[0]["name"] = "Gemm"


def _no_loop(data: Any, mapping: Any) -> None:
    mapping[0]["spatial_mapping"]["D1"] = ["KK, 32"]


def _no_dimension(data: Any, mapping: Any) -> None:
    mapping[0]["spatial_mapping"]["D9"] = ["K, 32"]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_without_memories, r"hardware\.yaml lacks the field 'memories'; it has name"),
        (_in_memory, r"hardware\.yaml: operational_array\.is_imc: in-memory-computing"),
        (_sizes, r"hardware\.yaml: operational_array needs a size for each dimension"),
        (_extracted, r"hardware\.yaml: memories\..*auto_cost_extraction needs CACTI"),
        (_fixed_order, r"mapping\.yaml: a fixed temporal_ordering is not supported"),
        (_no_default, r"mapping\.yaml must be a list with an entry named 'default'"),
        (_no_loop, r"mapping\.yaml: spatial_mapping\.D1 must hold .*got 'KK, 32'.*did you mean"),
        (_no_dimension, r"mapping\.yaml: spatial_mapping names 'D9'; legal: D1"),
    ],
)
def test_what_zigzags_files_lack_is_named(
    change: Callable[[Any, Any], None], said: str, tmp_path: Path
) -> None:
    design = read_preset("tpu_like")
    data, mapping = zigzag_accelerator(design), copy.deepcopy(zigzag_mapping(design))
    change(data, mapping)
    message = refusal(
        hardware=written(tmp_path / "hardware.yaml", data),
        mapping=written(tmp_path / "mapping.yaml", mapping),
    )
    assert re.search(said, message), message


def test_every_preset_says_where_its_numbers_come_from() -> None:
    for name in preset_names():
        assert read_preset(name).name == name
        assert read_preset(name).source, name
