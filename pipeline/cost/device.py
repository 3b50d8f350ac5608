"""Costs measured on this machine's CPU or GPU, unit by unit, and kept on disk."""

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from pipeline.cost.device_cache import MeasurementCache, UnitMeasurement
from pipeline.cost.device_setup import Precision, Setup, cache_bytes
from pipeline.cost.materials import random_module, random_state
from pipeline.cost.meter import find_meter
from pipeline.cost.model import Costs
from pipeline.cost.operators import time_kinds
from pipeline.cost.stopwatch import Effort, Runner, Sample, Timing, stopwatch_for, summarise
from pipeline.elastic import State
from pipeline.tracing import Kind, UnitTrace

# What passes through the caches between two runs of a unit, as a share of what the largest forms of
# all units hold together: paths are seldom the whole model. Chosen among 0, 0.1, 0.25, 0.5 and 1 by
# how near sums over units came to whole paths, for transformers of 1.7, 28 and 88 MB.
_SHARE_OF_MODEL = 0.5

# A ring holds a form at most so often: more copies of a small one would cost more time than its
# cold weights do.
_MOST_COPIES = 16


@dataclass(frozen=True)
class _Form:
    """A distinct static module with a distinct input: what one measurement is for."""

    signature: str
    unit: str
    build: Callable[[], nn.Module]  # on the meta device
    state: State
    bytes: int


class DeviceCostModel:
    """Prices units by running them: extracted modules with random weights, on the traced shapes.

    The sum over units is to predict the latency of the whole chain, so a unit is met as it is
    there. Units take turns in *rings*, each with weights of its own, as many as hold what a path
    would bring into the caches between two runs of the same unit; its input has just been written.
    A ring goes round until the medians of all its units are well known (see
    :class:`~pipeline.cost.stopwatch.Effort`).

    Results are kept in one JSON file a setup (device, library and driver versions, threads, batch,
    number format): a form is measured once. ``energy_mj`` and ``latency_ms`` are those of a batch
    divided by its size.

    Args:
        device: ``cpu``, ``cuda``, ``cuda:1``.
        threads: of torch, on a CPU; as many as torch is set to if None.
        batch_size: images a run.
        precision: ``float32``, or the type that autocast computes in.
        channels_last: whether images and convolutions keep their channels together in memory.
        cuda_graphs: whether a GPU replays recorded graphs.
        energy: True measures it or raises, False does not, None measures it where the device
            reports it.
        cache_dir: where results are kept; ``~/.cache/paretopath/device`` if None.
        effort: when to stop repeating; the defaults of its class if None.
        progress: told (forms measured, forms to measure) after each ring.

    Raises:
        InvalidValueError: an argument outside its legal values, or a device that is not here.
        MissingExtraError, HardwareError: ``energy=True``, but there is no meter.
    """

    def __init__(
        self,
        *,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int = 1,
        precision: Precision = "float32",
        channels_last: bool = False,
        cuda_graphs: bool = True,
        energy: bool | None = None,
        cache_dir: str | Path | None = None,
        effort: Effort | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.setup = Setup.of(
            device=device,
            threads=threads,
            batch_size=batch_size,
            precision=precision,
            channels_last=channels_last,
            cuda_graphs=cuda_graphs,
        )
        self.effort = effort or Effort()
        self.progress = progress
        self._meter = None if energy is False else find_meter(self.setup.place, required=energy)
        self._metered: set[str] = set()  # forms whose energy was asked for, even in vain
        root = Path(cache_dir or Path.home() / ".cache/paretopath/device")
        self.cache = MeasurementCache(root, self.setup.describe())

    @property
    def hardware(self) -> str:
        """The device's name and how it is used."""
        return self.setup.name

    def unit_costs(self, traces: Sequence[UnitTrace]) -> Costs:
        """The costs of each traced unit, in order; traffic is not measured."""
        found = self.measure(traces)
        energy = [math.nan if f.energy_mj is None else f.energy_mj for f in found]
        latency = [f.latency_ms for f in found]
        return Costs(
            energy_mj=np.array(energy, dtype=np.float64) / self.setup.batch_size,
            latency_ms=np.array(latency, dtype=np.float64) / self.setup.batch_size,
            dram_bytes=np.full(len(found), math.nan),
        )

    def measure(self, traces: Sequence[UnitTrace]) -> list[UnitMeasurement]:
        """What each traced unit takes; forms that the cache lacks are measured first.

        Args:
            traces: at best those of whole paths, which say how much a model holds.
        """
        forms = [_form(trace) for trace in traces]
        entries = self.cache.load()
        missing = {f.signature: f for f in forms if self._is_missing(f, entries)}
        done = 0
        for ring in _rings(list(missing.values()), self._footprint(forms)):
            entries |= (new := self._measure_ring(ring))
            self.cache.add(new)
            done += len(new)
            if self.progress:
                self.progress(done, len(missing))
        return [entries[form.signature] for form in forms]

    def kind_latency_ms(self, traces: Sequence[UnitTrace]) -> dict[Kind, float]:
        """Milliseconds for one image by kind of operator, each timed where it runs.

        What passes between operators is in none of them, so the sum is below that of the units.

        Args:
            traces: the units of one path, in order.
        """
        generator = torch.Generator().manual_seed(0)
        modules = [
            random_module(trace.unit.extract(dict(trace.choice)), self.setup, generator)
            for trace in traces
        ]
        images = random_state(traces[0].state, self.setup, generator)
        times = time_kinds(modules, images, self.setup, runs=self.effort.min_runs)
        return {kind: ms / self.setup.batch_size for kind, ms in times.items()}

    def _is_missing(self, form: _Form, entries: Mapping[str, UnitMeasurement]) -> bool:
        entry = entries.get(form.signature)
        if entry is None:
            return True
        wanted = self._meter is not None and form.signature not in self._metered
        return wanted and entry.energy_mj is None

    def _footprint(self, forms: Sequence[_Form]) -> int:
        """Bytes that a ring must hold: what a path touches, or what no cache holds."""
        largest: dict[str, int] = {}
        for form in forms:
            largest[form.unit] = max(form.bytes, largest.get(form.unit, 0))
        path = _SHARE_OF_MODEL * sum(largest.values())
        return round(min(path, 2 * cache_bytes(self.setup.place)))

    def _measure_ring(self, ring: Sequence[_Form]) -> dict[str, UnitMeasurement]:
        generator = torch.Generator().manual_seed(0)
        with self.setup.session():
            runners = [
                Runner(
                    random_module(form.build(), self.setup, generator),
                    random_state(form.state, self.setup, generator),
                    self.setup,
                )
                for form in ring
            ]
            timings = self._time(ring, runners)
            energies = self._energies(ring, runners)
        return {
            form.signature: UnitMeasurement(
                unit=form.unit,
                latency_ms=(timing := timings[form.signature]).median_ms,
                spread_ms=timing.iqr_ms,
                runs=timing.runs,
                interrupted=timing.interrupted,
                energy_mj=energies[form.signature],
            )
            for form in ring
        }

    def _energies(
        self, ring: Sequence[_Form], runners: Sequence[Runner]
    ) -> dict[str, float | None]:
        """Millijoules for a batch; None where the device does not say."""
        energies: dict[str, float | None] = {form.signature: None for form in ring}
        if self._meter is None:
            return energies
        for signature, runner in {
            form.signature: runner for form, runner in zip(ring, runners, strict=True)
        }.items():
            measured = self._meter.energy_mj(runner.run)
            energies[signature] = measured if math.isfinite(measured) else None
            self._metered.add(signature)
        return energies

    def _time(self, ring: Sequence[_Form], runners: Sequence[Runner]) -> dict[str, Timing]:
        """Rounds through a ring until every form's median is good enough."""
        stopwatch = stopwatch_for(self.setup)
        samples: dict[str, list[Sample]] = {form.signature: [] for form in ring}
        stopwatch.time(runners)  # one round that does not count
        while True:
            for form, sample in zip(ring, stopwatch.time(runners), strict=True):
                samples[form.signature].append(sample)
            fewest = min(len(found) for found in samples.values())
            if fewest < self.effort.min_runs:
                continue
            timings = {signature: summarise(found) for signature, found in samples.items()}
            if fewest >= self.effort.max_runs or all(
                timing.relative_error <= self.effort.tolerance
                or sum(s.ms for s in samples[signature]) >= 1e3 * self.effort.seconds
                for signature, timing in timings.items()
            ):
                return timings


def _form(trace: UnitTrace) -> _Form:
    choice = dict(trace.choice)
    shapes = [(str(t.dtype), tuple(t.shape)) for t in _tensors(trace.state)]
    described = (shapes, trace.layers, trace.unit.extract(choice))
    return _Form(
        signature=hashlib.sha256(repr(described).encode()).hexdigest()[:16],
        unit=trace.unit.name,
        build=lambda: trace.unit.extract(choice),
        state=trace.state,
        bytes=4 * trace.params + sum(t.numel() * t.element_size() for t in _tensors(trace.state)),
    )


def _tensors(state: State) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]


def _rings(forms: Sequence[_Form], footprint: int) -> list[list[_Form]]:
    """Groups of consecutive forms that hold ``footprint`` bytes or more, the last in copies."""
    rings: list[list[_Form]] = []
    ring: list[_Form] = []
    for form in forms:
        ring.append(form)
        if sum(f.bytes for f in ring) >= footprint:
            rings.append(ring)
            ring = []
    if ring:
        copies = math.ceil(footprint / max(1, sum(form.bytes for form in ring)))
        rings.append(ring * min(copies, _MOST_COPIES))
    return rings
