"""ZigZag as the reference: what its mapper finds for each layer, kept on disk."""

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from paretopath.cost.accelerator import Objective, check_objective
from paretopath.cost.hardware import Hardware
from paretopath.cost.model import Costs, LayerCostModel
from paretopath.cost.passes import MJ_PER_PJ, price_passes
from paretopath.cost.zigzag_format import zigzag_accelerator, zigzag_mapping, zigzag_workload
from paretopath.errors import HardwareError, InvalidValueError, MissingExtraError
from paretopath.tracing import Layer

POLL_SECONDS = 0.5


class MapperModel(LayerCostModel):
    """Prices layers with ZigZag (Mei et al., IEEE Transactions on Computers 2021).

    It takes seconds a layer, so layers are mapped in parallel, in processes of their own, and each
    leaves a file: an interrupted run resumes. Passes are priced as
    :class:`~paretopath.cost.accelerator.AcceleratorModel` prices them: ZigZag has no vector unit.

    Args:
        design: the accelerator.
        objective: as for :class:`~paretopath.cost.accelerator.AcceleratorModel`.
        cache_dir: where results are kept, in a folder for each hardware;
            ``~/.cache/paretopath/mapper`` if None.
        workers: processes at a time; as many as there are cores if None.
        progress: told (layers mapped, layers to map) as they are mapped.

    Raises:
        MissingExtraError: ZigZag is not installed.
    """

    def __init__(
        self,
        design: Hardware,
        *,
        objective: Objective = "each",
        cache_dir: str | Path | None = None,
        workers: int | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        check_objective(objective)
        if workers is not None and workers < 1:
            raise InvalidValueError(f"workers must be at least 1, got {workers}")
        try:
            self.version = version("zigzag-dse")
        except PackageNotFoundError:
            raise MissingExtraError(
                "the mapper needs ZigZag, which is not installed: pip install 'paretopath[zigzag]'"
            ) from None
        self.design = design
        self.objective = objective
        self.workers = workers or os.cpu_count() or 1
        self.progress = progress
        root = (
            Path(cache_dir) if cache_dir is not None else Path.home() / ".cache/paretopath/mapper"
        )
        accelerator = {**zigzag_accelerator(design), "name": "design"}  # its name does not matter
        described = json.dumps([accelerator, zigzag_mapping(design), self.version])
        digest = hashlib.sha256(described.encode()).hexdigest()[:12]
        self.cache = root / f"{design.name}-{digest}"

    @property
    def hardware(self) -> str:
        """The design's name."""
        return self.design.name

    def price(self, layers: Sequence[Layer]) -> Costs:
        """The costs of each layer, in order; layers that are not in the cache are mapped first.

        Raises:
            HardwareError: a layer that ZigZag can't map on this design.
        """
        found = self._found([layer for layer in layers if not layer.is_pass])
        table = np.zeros((len(layers), 3))
        by_energy, by_latency = (
            ("energy", "latency") if self.objective == "each" else (self.objective,) * 2
        )
        for i, layer in enumerate(layers):
            if not layer.is_pass:
                result = found[_shape(layer)]
                table[i] = (
                    result[by_energy]["energy_pj"] * MJ_PER_PJ,
                    result[by_latency]["cycles"] / self.design.clock_mhz * 1e-3,
                    result[by_energy]["dram_bytes"],
                )
        passes = [i for i, layer in enumerate(layers) if layer.is_pass]
        if passes:
            costs = price_passes(self.design, [layers[i] for i in passes]).costs
            table[passes] = np.stack([costs.energy_mj, costs.latency_ms, costs.dram_bytes], axis=1)
        return Costs(table[:, 0], table[:, 1], table[:, 2])

    def _found(self, layers: Sequence[Layer]) -> dict[Layer, Mapping[str, Any]]:
        shapes = list(dict.fromkeys(_shape(layer) for layer in layers))
        self._map([shape for shape in shapes if not self._file(shape).exists()])
        found = {}
        for shape in shapes:
            found[shape] = json.loads(self._file(shape).read_text())
            if "error" in found[shape]:
                raise HardwareError(
                    f"ZigZag can't map the {shape} on {self.design.name}: {found[shape]['error']}"
                )
        return found

    def _file(self, shape: Layer) -> Path:
        groups = f"-g{shape.groups}" if shape.groups > 1 else ""
        weights, activations = shape.weight_bits, shape.activation_bits
        bits = f"-{weights}bit" if weights != 8 else ""
        if weights != activations:
            bits = f"-w{weights}a{activations}bit"
        name = f"b{shape.b}-k{shape.k}-c{shape.c}-o{shape.oy}x{shape.ox}-f{shape.fy}x{shape.fx}"
        return self.cache / f"{name}-s{shape.stride}-i{shape.iy}x{shape.ix}{groups}{bits}.json"

    def _map(self, shapes: Sequence[Layer]) -> None:
        """Maps layers in up to ``workers`` processes, each of which leaves a file a layer."""
        if not shapes:
            return
        self.cache.mkdir(parents=True, exist_ok=True)
        job = {
            "accelerator": zigzag_accelerator(self.design),
            "mapping": zigzag_mapping(self.design),
        }
        count = min(self.workers, len(shapes))
        with tempfile.TemporaryDirectory() as folder:
            processes = []
            for i in range(count):
                entries = [
                    {
                        "workload": zigzag_workload(shape, self.design),
                        "file": str(self._file(shape).resolve()),
                    }
                    for shape in shapes[i::count]
                ]
                path = Path(folder, f"{i}.json")
                path.write_text(json.dumps({**job, "entries": entries}))
                processes.append(_start(path))
            try:
                outputs = [self._wait(process, shapes) for process in processes]
            finally:
                for process in processes:
                    process.kill()
        for process, output in zip(processes, outputs, strict=True):
            if process.returncode:
                last = output.strip().splitlines()[-1:] or ["no output"]
                raise HardwareError(f"ZigZag stopped with status {process.returncode}: {last[0]}")

    def _wait(self, process: "subprocess.Popen[str]", shapes: Sequence[Layer]) -> str:
        """What a process printed, once it has ended; tells how far all of them are meanwhile."""
        while True:
            try:
                return process.communicate(timeout=POLL_SECONDS)[0]
            except subprocess.TimeoutExpired:
                self._report(shapes)
            finally:
                if process.returncode is not None:
                    self._report(shapes)

    def _report(self, shapes: Sequence[Layer]) -> None:
        if self.progress:
            self.progress(sum(self._file(shape).exists() for shape in shapes), len(shapes))


def _start(job: Path) -> "subprocess.Popen[str]":
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"}
    root = str(Path(__file__).resolve().parents[2])
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        [sys.executable, "-m", "paretopath.cost.zigzag_worker", str(job)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=environment,
    )


def _shape(layer: Layer) -> Layer:
    """The layer less what makes no difference to hardware."""
    return replace(layer, kind="convolution", weight_bits=layer.stationary_bits, operator="")
