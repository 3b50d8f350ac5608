"""Costs measured on this machine's CPU or GPU, unit by unit, and kept on disk."""

import hashlib
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from paretopath.cost.device_cache import MeasurementCache, UnitMeasurement
from paretopath.cost.device_setup import Precision, Setup
from paretopath.cost.materials import random_module, random_state
from paretopath.cost.meter import find_meter
from paretopath.cost.model import Costs
from paretopath.cost.operators import time_kinds
from paretopath.cost.stopwatch import Effort, Runner, Sample, Timing, stopwatch_for, summarise
from paretopath.elastic import State
from paretopath.tracing import Kind, UnitTrace


@dataclass(frozen=True)
class _Form:
    """A distinct static module with a distinct input: what one measurement is for."""

    signature: str
    unit: str
    type: str
    build: Callable[[], nn.Module]  # on the meta device
    state: State


class DeviceCostModel:
    """Prices units by running them: extracted modules with random weights, on the traced shapes.

    The sum over units is to predict the latency of the whole chain, so units are timed in chains:
    one after another as on a path of middling length, each with weights of its own and an input
    that has just been written. Caches, allocator and branch predictors are then as warm or cold as
    they are on a path. (A unit run over and over alone was up to 40 % too fast, one among unlike
    units up to twice too slow, where a model fits into the caches.) A chain runs until the medians
    of all its units are well known (see :class:`~paretopath.cost.stopwatch.Effort`).

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
        progress: told (forms measured, forms to measure) after each chain.

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
            traces: first those of one whole path, in order: it is the pattern of the chains.
        """
        forms = [_form(trace) for trace in traces]
        entries = self.cache.load()
        missing = {f.signature: f for f in forms if self._is_missing(f, entries)}
        done = 0
        for ring in _rings(list(missing.values()), _chain(forms)):
            new = self._measure_ring(ring, missing)
            missing = {key: form for key, form in missing.items() if key not in new}
            entries |= new
            self.cache.add(new)
            done += len(new)
            if self.progress:
                self.progress(done, done + len(missing))
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

    def _measure_ring(
        self, ring: Sequence[_Form], wanted: Collection[str]
    ) -> dict[str, UnitMeasurement]:
        """Results for the forms of a ring whose signatures are wanted."""
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
            asked = {form.signature: form for form in ring if form.signature in wanted}
            timings = self._time([form.signature for form in ring], runners, asked)
            energies = self._energies(ring, runners)
        return {
            signature: UnitMeasurement(
                unit=form.unit,
                latency_ms=timings[signature].median_ms,
                spread_ms=timings[signature].iqr_ms,
                runs=timings[signature].runs,
                interrupted=timings[signature].interrupted,
                energy_mj=energies[signature],
            )
            for signature, form in asked.items()
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

    def _time(
        self, signatures: Sequence[str], runners: Sequence[Runner], wanted: Collection[str]
    ) -> dict[str, Timing]:
        """Goes round a ring until the median of every wanted form is good enough."""
        stopwatch = stopwatch_for(self.setup)
        samples: dict[str, list[Sample]] = {signature: [] for signature in signatures}
        stopwatch.time(runners)  # one round that does not count
        while True:
            for signature, sample in zip(signatures, stopwatch.time(runners), strict=True):
                samples[signature].append(sample)
            timings = {signature: summarise(samples[signature]) for signature in wanted}
            if all(self._is_enough(samples[key], timing) for key, timing in timings.items()):
                return timings

    def _is_enough(self, samples: Sequence[Sample], timing: Timing) -> bool:
        effort = self.effort
        if len(samples) < effort.min_runs:
            return False
        precise = timing.relative_error <= effort.tolerance
        spent = sum(sample.ms for sample in samples)
        return precise or len(samples) >= effort.max_runs or spent >= 1e3 * effort.seconds


def _form(trace: UnitTrace) -> _Form:
    choice = dict(trace.choice)
    shapes = [(str(t.dtype), tuple(t.shape)) for t in _tensors(trace.state)]
    described = (shapes, trace.layers, trace.unit.extract(choice))
    return _Form(
        signature=hashlib.sha256(repr(described).encode()).hexdigest()[:16],
        unit=trace.unit.name,
        type=type(trace.unit).__name__,
        build=lambda: trace.unit.extract(choice),
        state=trace.state,
    )


def _tensors(state: State) -> list[Tensor]:
    return [leaf for leaf in tree_leaves(state) if isinstance(leaf, Tensor)]


def _chain(forms: Sequence[_Form]) -> list[_Form]:
    """A path of middling length: of the first path every second unit, and each type of unit."""
    first: list[_Form] = []
    for form in forms:
        if form.unit in {other.unit for other in first}:
            break
        first.append(form)
    chain = first[:-1:2] + first[-1:]
    for form in forms:
        if form.type not in {other.type for other in chain}:
            chain.append(form)
    return chain


def _rings(missing: Sequence[_Form], chain: Sequence[_Form]) -> list[list[_Form]]:
    """The chain again and again, each time with other forms in the places of their likes."""
    rings = []
    left = list(missing)
    while left:
        ring, taken, rest = list(chain), set[int](), []
        for form in left:
            free = [i for i, o in enumerate(chain) if o.type == form.type and i not in taken]
            if not free:
                rest.append(form)
                continue
            place = next((i for i in free if chain[i].unit == form.unit), free[0])
            ring[place] = form
            taken.add(place)
        rings.append(ring)
        left = rest
    return rings
