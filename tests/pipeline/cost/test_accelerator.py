"""The analytic accelerator: its figures, its invariants and what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from paretopath.cost import CostTable, create
from paretopath.cost.accelerator import AcceleratorModel, Objective
from paretopath.cost.design import read_preset
from paretopath.cost.hardware import LEVELS
from paretopath.elastic.registry import create_space
from paretopath.errors import HardwareError, InvalidValueError
from paretopath.recipe.presets import preset_names
from paretopath.tracing import Layer

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
GOLDEN = json.loads(Path(__file__).with_name("golden.json").read_text())
LAYERS = [Layer.conv(**shape) for shape in GOLDEN["layers"]]
DOUBLED = {"k": (2, 1, 1), "c": (1, 2, 1), "oy": (1, 1, 2), "k and c": (2, 2, 1)}


def attention(queries: int, keys: int, channels: int, *, heads: int = 1) -> Layer:
    """The product of queries and keys; keys and channels of all heads together."""
    return Layer("matmul", k=keys, c=channels, oy=queries, iy=queries, groups=heads)


def resnet50() -> list[Layer]:
    """The convolutions and the classifier of ResNet-50 at 224x224."""
    layers = [Layer.conv(k=64, c=3, oy=112, ox=112, fy=7, fx=7, stride=2, iy=224, ix=224)]
    channels, size = 64, 56
    for stage, (blocks, middle) in enumerate([(3, 64), (4, 128), (6, 256), (3, 512)]):
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            out, wide = size // stride, 4 * middle
            within = {"oy": out, "ox": out, "stride": stride, "iy": size, "ix": size}
            layers += [
                Layer.conv(k=middle, c=channels, oy=size, ox=size),
                Layer.conv(k=middle, c=middle, fy=3, fx=3, **within),
                Layer.conv(k=wide, c=middle, oy=out, ox=out),
            ]
            if block == 0:
                layers.append(Layer.conv(k=wide, c=channels, **within))
            channels, size = wide, out
    return [*layers, Layer.conv(k=1000, c=2048, oy=1, ox=1, kind="linear")]


@pytest.mark.parametrize("preset", preset_names())
def test_golden_energy_latency_and_traffic(preset: str) -> None:
    costs = create("accelerator", preset=preset).price(LAYERS)
    for name, wanted in GOLDEN["presets"][preset].items():
        np.testing.assert_allclose(costs[name], wanted, rtol=1e-8, err_msg=name)


def test_magnet_takes_the_published_energy_on_resnet50() -> None:
    layers = resnet50()
    macs = sum(layer.macs for layer in layers)
    assert macs == 4_089_184_256
    energy = create("accelerator", preset="magnet-16nm").price_by_level(layers).energy_mj
    on_chip = sum(float(spent.sum()) for level, spent in energy.items() if level != "dram")
    assert on_chip * 1e12 / macs / 2 == pytest.approx(40, rel=0.15)  # fJ of half a MAC


def test_agrees_with_what_zigzag_found_for_72_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    from cost_layers import distinct_layers

    layers = distinct_layers()
    recorded = json.loads((BENCHMARKS / "results" / "cost_vs_zigzag.json").read_text())["zigzag"]
    assert len(recorded) >= 3 and len(layers) == 72
    for design, zigzag in recorded.items():
        costs = create("accelerator", preset=design).price(layers)
        for name, median, p90 in (("energy_mj", 0.02, 0.06), ("latency_ms", 0.05, 0.15)):
            errors = np.abs(costs[name] / np.array(zigzag[name]) - 1)
            assert np.median(errors) <= median, (design, name)
            assert np.percentile(errors, 90) <= p90, (design, name)


@pytest.mark.parametrize("preset", ["magnet-16nm", "edge_tpu_like"])
def test_a_layer_prices_identically_alone_and_among_others(preset: str) -> None:
    together = create("accelerator", preset=preset).price([*LAYERS, *LAYERS])
    for i, layer in enumerate(LAYERS):
        alone = create("accelerator", preset=preset).price([layer])
        for name in ("energy_mj", "latency_ms", "dram_bytes"):
            assert alone[name][0] == together[name][i] == together[name][i + len(LAYERS)]


@pytest.mark.parametrize("preset", ["magnet-16nm", "simba-like", "tpu_like"])
@pytest.mark.parametrize("what", DOUBLED)
def test_doubling_a_loop_never_lowers_energy(preset: str, what: str) -> None:
    rng = np.random.default_rng(0)
    layers = []
    for _ in range(40):
        (k, c), size, side = (
            8 * rng.integers(1, 64, 2),
            int(rng.integers(1, 57)),
            rng.choice([1, 3]),
        )
        for a, b, y in ((1, 1, 1), DOUBLED[what]):
            shape = {"k": int(k * a), "c": int(c * b), "oy": size * y, "ox": size}
            layers.append(Layer.conv(**shape, fy=int(side), fx=int(side), iy=size * y, ix=size))
    energy_mj = create("accelerator", preset=preset).price(layers).energy_mj.reshape(-1, 2)
    assert (energy_mj[:, 1] > energy_mj[:, 0]).all()


@pytest.mark.parametrize("preset", preset_names())
def test_latency_is_never_below_what_the_multipliers_need(preset: str) -> None:
    design = read_preset(preset)
    multipliers = np.prod(list(design.array.dimensions.values()))
    least_ms = np.array([layer.macs for layer in LAYERS]) / multipliers / design.clock_mhz * 1e-3
    assert (create("accelerator", preset=preset).price(LAYERS).latency_ms > least_ms).all()


@pytest.mark.parametrize("preset", preset_names())
def test_every_weight_and_output_crosses_the_outermost_memory(preset: str) -> None:
    costs = create("accelerator", preset=preset).price(LAYERS)
    least = np.array([layer.weight_elements + layer.output_elements for layer in LAYERS])
    # uneven unrollings count the average of the units, rounded, as ZigZag does: 62 of 62.5 lanes
    assert (costs.dram_bytes >= 0.99 * least).all()


def test_energy_by_level_adds_up() -> None:
    priced = create("accelerator", preset="magnet-16nm").price_by_level(LAYERS)
    assert tuple(priced.energy_mj) == LEVELS
    np.testing.assert_allclose(sum(priced.energy_mj.values()), priced.costs.energy_mj)
    macs = np.array([layer.macs for layer in LAYERS])
    per_mac_pj = read_preset("magnet-16nm").array.mac_energy_pj
    np.testing.assert_allclose(priced.energy_mj["mac"], macs * per_mac_pj * 1e-9)


def test_each_reports_the_least_energy_and_the_least_latency() -> None:
    objectives: tuple[Objective, ...] = ("each", "energy", "latency", "edp")
    by = {
        objective: create("accelerator", preset="tpu_like", objective=objective).price(LAYERS)
        for objective in objectives
    }
    assert (by["each"].energy_mj == by["energy"].energy_mj).all()
    assert (by["each"].latency_ms == by["latency"].latency_ms).all()
    products = {name: costs.energy_mj * costs.latency_ms for name, costs in by.items()}
    assert (products["edp"] <= products["energy"] * (1 + 1e-12)).all()
    assert (products["edp"] <= products["latency"] * (1 + 1e-12)).all()


def test_more_tilings_never_price_higher() -> None:
    few, many = (
        create("accelerator", preset="magnet-16nm", max_factors=count).price(LAYERS)
        for count in (3, 6)
    )
    assert (many.energy_mj <= few.energy_mj * (1 + 1e-12)).all()
    assert (many.energy_mj < few.energy_mj).any()


def test_wider_values_take_more_energy() -> None:
    eight, sixteen = (Layer.conv(k=64, c=64, oy=14, ox=14, bits=bits) for bits in (8, 16))
    energy = create("accelerator", preset="magnet-16nm").price([eight, sixteen]).energy_mj
    assert energy[1] > 1.9 * energy[0]


def test_narrower_weights_leave_activations_as_they_are() -> None:
    eight = Layer.conv(k=64, c=64, oy=4, ox=1)
    apart = Layer.conv(k=64, c=64, oy=4, ox=1, weight_bits=4, activation_bits=8)
    attention_like = replace(apart, kind="matmul")  # both of its operands are activations
    costs = create("accelerator", preset="magnet-16nm").price([eight, apart, attention_like])
    saved = eight.weight_elements * 4 / 8
    assert costs.dram_bytes[0] - costs.dram_bytes[1] == pytest.approx(saved, rel=0.01)
    assert costs.dram_bytes[2] == costs.dram_bytes[0]
    assert costs.energy_mj[1] < costs.energy_mj[0] == costs.energy_mj[2]


def test_passes_cost_what_they_move() -> None:
    fused, joined, streamed = (
        Layer(kind="other", reads=2000, writes=1000, operations=1000, operator=operator)
        for operator in ("relu", "add", "_softmax")
    )
    costs = create("accelerator", preset="magnet-16nm").price([fused, joined, streamed])
    per_operation_pj = read_preset("magnet-16nm").vector_unit.operation_energy_pj
    assert costs.dram_bytes.tolist() == [0, 1000, 3000]
    assert costs.energy_mj[0] == pytest.approx(1000 * per_operation_pj * 1e-9)
    assert costs.energy_mj[0] < costs.energy_mj[1] < costs.energy_mj[2]


def test_no_layers_cost_nothing() -> None:
    assert create("accelerator", preset="magnet-16nm").price([]).energy_mj.shape == (0,)


@pytest.mark.parametrize(
    ("preset", "layer"),
    [  # inner memories could hold so much of each operand that the global buffer can't hold both
        ("magnet-16nm", attention(660, 70, 32, heads=2)),
        ("magnet-16nm", attention(1204, 51, 15)),
        ("simba-like", attention(390, 472, 168, heads=8)),
    ],
)
def test_operands_share_a_memory_that_their_largest_tiles_would_overfill(
    preset: str, layer: Layer
) -> None:
    smaller = replace(layer, oy=layer.oy // 2, iy=layer.iy // 2)
    costs = create("accelerator", preset=preset).price([layer, smaller])
    for values in (costs.energy_mj, costs.latency_ms):
        assert 1.2 < values[0] / values[1] < 2.6


def test_a_layer_that_does_not_fit_is_named() -> None:
    layer = Layer.conv(k=8, c=8, oy=4, ox=4, bits=32)
    model = create("accelerator", preset="tpu_like")
    with pytest.raises(HardwareError) as caught:
        model.price([Layer.conv(k=8, c=8, oy=4, ox=4), layer])
    assert str(caught.value) == (
        "tpu_like can't run the 1x1 convolution, 8 to 8 channels, 4x4 outputs, 32 bits: memory "
        "'rf_2B' must hold at least 64 bits of outputs at once, but has 16 bits"
    )


def test_a_unit_that_does_not_fit_is_named_with_what_it_needs() -> None:
    design = read_preset("magnet-16nm")
    small = design.memories[-1].model_copy(update={"size_bits": 200_000})  # for 25 kB of an image
    model = AcceleratorModel(design.model_copy(update={"memories": (*design.memories[:-1], small)}))
    space = create_space("vit", model="vit_tiny_patch16_224", arguments={"depth": 1})
    table = CostTable(space, model)
    with pytest.raises(HardwareError, match=r"^unit 'stem': magnet-16nm can't run the 16x16 conv"):
        table([space.full])
    with pytest.raises(HardwareError, match=r"'dram' must hold at least 33\d kB of .*has 25 kB"):
        table([space.full])


def test_create_refuses_an_unknown_kind() -> None:
    with pytest.raises(InvalidValueError, match=r"no cost model 'maper'.*did you mean 'mapper'"):
        create("maper")


@pytest.mark.parametrize("kind", ["accelerator", "mapper", "device"])
def test_create_refuses_an_unknown_option(kind: str) -> None:
    options = {"thread": 1} if kind == "device" else {"presets": "tpu_like"}
    meant = "threads" if kind == "device" else "preset"
    with pytest.raises(InvalidValueError, match=f"'{kind}' has no .*did you mean '{meant}'"):
        create(kind, **options)


def test_an_unknown_objective_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="did you mean 'energy'"):
        create("accelerator", preset="tpu_like", objective="enrgy")  # type: ignore[call-overload]


@pytest.mark.parametrize("count", [0, 9])
def test_the_number_of_factors_is_limited(count: int) -> None:
    with pytest.raises(InvalidValueError, match=f"max_factors must be 1 to 8, got {count}"):
        AcceleratorModel(read_preset("tpu_like"), max_factors=count)
