"""The energy that a device says it used, through Zeus."""

import time
from collections.abc import Callable
from typing import Any

import torch

from paretopath.errors import HardwareError, MissingExtraError

# Counters refresh about every 100 ms on NVIDIA GPUs (Zeus's documentation of ZeusMonitor warns of
# shorter windows): a window ten times as long is at most some 10 % off, and this one half of that.
WINDOW_SECONDS = 2.0


class EnergyMeter:
    """Energy of repeated runs, what the idle device draws meanwhile included.

    Args:
        monitor: a ``zeus.monitor.ZeusMonitor`` of one GPU, or of the CPU's packages.
        device: what it watches.
    """

    def __init__(self, monitor: Any, device: torch.device) -> None:
        self.monitor = monitor
        self.device = device

    def energy_mj(self, run: Callable[[], None], *, seconds: float = WINDOW_SECONDS) -> float:
        """Millijoules a run, NaN if the counter did not move.

        Args:
            run: called again and again, without a pause.
            seconds: for at least so long.
        """
        # a GPU gets a queue, so that it does not wait for the next launch
        burst = 50 if self.device.type == "cuda" else 1
        self._wait()
        self.monitor.begin_window("runs")
        start, runs = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            for _ in range(burst):
                run()
            runs += burst
            self._wait()
        window = self.monitor.end_window("runs")
        if self.device.type == "cuda":
            joules = sum(window.gpu_energy.values())
        else:
            counters = [window.cpu_energy or {}, window.dram_energy or {}]
            joules = sum(sum(counter.values()) for counter in counters)
        return joules * 1e3 / runs if joules > 0 else float("nan")

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def find_meter(device: torch.device, *, required: bool | None = False) -> EnergyMeter | None:
    """The meter of a device; None where there is none.

    Args:
        device: a GPU, or the CPU (all packages: other processes' energy is in it).
        required: whether its absence is an error; None counts as False.

    Raises:
        MissingExtraError: required, but Zeus is not installed.
        HardwareError: required, but the device does not report its energy.
    """
    try:
        from zeus.monitor import ZeusMonitor
    except ImportError:
        if required:
            raise MissingExtraError(
                "measuring energy needs Zeus, which is not installed: "
                "pip install 'paretopath[energy]'"
            ) from None
        return None
    if device.type == "cuda":
        index = device.index if device.index is not None else torch.cuda.current_device()
        monitor = ZeusMonitor(gpu_indices=[index], cpu_indices=[])
        found = bool(monitor.gpu_indices)
    else:
        monitor = ZeusMonitor(gpu_indices=[])
        found = bool(monitor.cpu_indices)
    if not found and required:
        raise HardwareError(
            f"the device {device} must report its energy, "
            "but Zeus finds no counter that it may read"
        )
    return EnergyMeter(monitor, device) if found else None
