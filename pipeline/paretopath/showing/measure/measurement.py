"""Whole paths measured on a device."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from paretopath.cost.device_setup import Precision, Setup
from paretopath.cost.meter import EnergyMeter, find_meter
from paretopath.cost.stopwatch import Runner, Sample, stopwatch_for, summarise
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.errors import InvalidValueError
from paretopath.paths import ExecutionPath, Value

# Each time its turn comes a path runs for at least so long, within these numbers of runs.
_TURN_MS = 50.0
_FEWEST_RUNS, _MOST_RUNS = 5, 50


@dataclass(frozen=True)
class Measurement:
    """One path, measured as a static model.

    Attributes:
        path_id: which path.
        latency_ms: milliseconds for one image: the median for a batch, divided by its size.
        spread_ms: interquartile range, for one image.
        images_per_s: images a second, batch after batch.
        energy_mj: millijoules for one image, what the idle device draws included; None where the
            device does not report energy.
        batch_size: images a run.
        runs: how many runs count.
        interrupted: the share of runs left out because other processes interrupted them.
    """

    path_id: str
    latency_ms: float
    spread_ms: float
    images_per_s: float
    energy_mj: float | None
    batch_size: int
    runs: int
    interrupted: float


def measure_paths(
    model: ElasticModel,
    paths: Sequence[Mapping[str, Value]],
    *,
    device: str = "cpu",
    batch_size: int = 1,
    threads: int | None = None,
    precision: Precision = "float32",
    channels_last: bool = False,
    cuda_graphs: bool = True,
    rounds: int = 10,
    energy: bool | None = None,
    seed: int = 0,
    progress: Callable[[int, int], None] | None = None,
) -> list[Measurement]:
    """Measures paths in rounds of a new random order each: a machine's drift hits all alike.

    Whenever a path's turn comes its static model is extracted anew: only one is in memory at a
    time, and the luck of where it lies there averages out.

    Args:
        model: holds the weights, on any device.
        paths: canonical paths.
        device, batch_size, threads, precision, channels_last, cuda_graphs: see
            :class:`~paretopath.cost.device_setup.Setup`.
        rounds: how often each path's turn comes; at least 1. 5 to 50 runs are timed each time.
        energy: True measures it or raises, False does not, None measures it where the device
            reports it.
        seed: of the order and of the random images.
        progress: told (turns done, turns in all) after each turn.

    Returns:
        One measurement for each path, in order.

    Raises:
        InvalidValueError: an argument outside its legal values, or a device that is not here.
        MissingExtraError, HardwareError: ``energy=True``, but there is no meter.
    """
    if rounds < 1:
        raise InvalidValueError(f"rounds must be at least 1, got {rounds}")
    setup = Setup.of(
        device=device,
        threads=threads,
        batch_size=batch_size,
        precision=precision,
        channels_last=channels_last,
        cuda_graphs=cuda_graphs,
    )
    canonical = [model.space.canonical(path) for path in paths]
    rng = np.random.default_rng(seed)
    images = _images(model, setup, seed)
    meter = None if energy is False else find_meter(setup.place, required=energy)
    samples: list[list[Sample]] = [[] for _ in canonical]
    energies: list[float | None] = [None for _ in canonical]
    turns = [i for _ in range(rounds) for i in rng.permutation(len(canonical)).tolist()]
    for done, i in enumerate(turns):
        first = done < len(canonical)
        found, millijoules = _take_turn(
            model, canonical[i], images, setup, meter if first else None
        )
        samples[i] += found
        energies[i] = millijoules if first else energies[i]
        if progress:
            progress(done + 1, len(turns))
    return [
        _measurement(path, found, millijoules, batch_size)
        for path, found, millijoules in zip(canonical, samples, energies, strict=True)
    ]


def _take_turn(
    model: ElasticModel,
    path: ExecutionPath,
    images: torch.Tensor,
    setup: Setup,
    meter: EnergyMeter | None,
) -> tuple[list[Sample], float | None]:
    """A few runs of a path, and millijoules for a batch if there is a meter."""
    static = setup.prepare(model.extract(path))
    stopwatch = stopwatch_for(setup)
    with setup.session():
        runner = Runner(static, images, setup)
        (warm_up,) = stopwatch.time([runner])  # does not count
        runs = math.ceil(_TURN_MS / max(warm_up.ms, 1e-3))
        runs = min(_MOST_RUNS, max(_FEWEST_RUNS, runs))
        samples = [sample for _ in range(runs) for sample in stopwatch.time([runner])]
        return samples, meter.energy_mj(runner.run) if meter else None


def _images(model: ElasticModel, setup: Setup, seed: int) -> torch.Tensor:
    space = model.space
    assert isinstance(space, ElasticSpace)
    generator = torch.Generator().manual_seed(seed)
    images = torch.randn(setup.batch_size, *space.input_shape, generator=generator)
    placed: torch.Tensor = setup.place_state(images)
    return placed


def _measurement(
    path: ExecutionPath, samples: Sequence[Sample], millijoules: float | None, batch_size: int
) -> Measurement:
    timing = summarise(samples)
    if millijoules is not None and not math.isfinite(millijoules):
        millijoules = None
    return Measurement(
        path_id=path.id,
        latency_ms=timing.median_ms / batch_size,
        spread_ms=timing.iqr_ms / batch_size,
        images_per_s=1e3 * batch_size / timing.median_ms,
        energy_mj=None if millijoules is None else millijoules / batch_size,
        batch_size=batch_size,
        runs=timing.runs,
        interrupted=timing.interrupted,
    )
