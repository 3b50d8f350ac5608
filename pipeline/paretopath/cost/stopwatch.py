"""How long a module takes on a device, on a machine that others use too."""

import math
import resource
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map_only

from paretopath.cost.device_setup import Setup
from paretopath.elastic import State

# Standard error of a median of n normal samples: sqrt(pi / 2) sigma / sqrt(n); their interquartile
# range is 1.349 sigma (Kendall & Stuart, The Advanced Theory of Statistics, vol. 1, 10.11)
_MEDIAN_ERROR_PER_IQR = 1.2533 / 1.349

# GPU clock cycles, some 10 ms, that the device sleeps while a round is queued: so that it never
# waits for a launch
_QUEUE_CYCLES = 20_000_000


@dataclass(frozen=True)
class Sample:
    """One run.

    Attributes:
        ms: milliseconds.
        interrupted: whether they hold time in which another process had a core.
    """

    ms: float
    interrupted: bool = False


@dataclass(frozen=True)
class Timing:
    """Many runs of one thing.

    Attributes:
        median_ms: milliseconds a run.
        iqr_ms: interquartile range.
        runs: how many runs count.
        interrupted: the share, in [0, 1], of all runs that other processes interrupted; they do not
            count unless hardly any was left alone.
    """

    median_ms: float
    iqr_ms: float
    runs: int
    interrupted: float

    @property
    def relative_error(self) -> float:
        """The median's standard error as a share of it; 0 for what no clock can resolve."""
        if self.median_ms == 0:
            return 0.0
        return _MEDIAN_ERROR_PER_IQR * self.iqr_ms / (math.sqrt(self.runs) * self.median_ms)


def summarise(samples: Sequence[Sample]) -> Timing:
    """Median and spread of the runs that nothing interrupted.

    If those are fewer than five: of the fastest tenth, at least five. Interruptions only add time.
    """
    counted = alone = [sample.ms for sample in samples if not sample.interrupted]
    if len(alone) < 5:
        counted = sorted(sample.ms for sample in samples)[: max(5, len(samples) // 10)]
    low, median, high = np.percentile(counted, [25, 50, 75])
    share = 1 - len(alone) / len(samples)
    return Timing(float(median), float(high - low), len(counted), share)


@dataclass(frozen=True)
class Effort:
    """When to stop repeating.

    Attributes:
        tolerance: the relative standard error of a median that is good enough.
        min_runs, max_runs: bounds of the number of runs.
        seconds: of each thing's runs, after which it is left at that.
    """

    tolerance: float = 0.02
    min_runs: int = 10
    max_runs: int = 200
    seconds: float = 1.0


class Runner:
    """A module with an input, warmed up and ready to be run again and again.

    Args:
        module: as :meth:`Setup.prepare` leaves it.
        state: its input, on the device.
        setup: where and how. Its session must be open.
    """

    def __init__(self, module: nn.Module, state: State, setup: Setup) -> None:
        self.module = module
        self.source = state
        self.graph: torch.cuda.CUDAGraph | None = None
        self.state = tree_map_only(Tensor, torch.clone, state)
        if setup.cuda_graphs:
            self._record()
        else:
            for _ in range(2):
                self.run()

    def refresh(self) -> None:
        """Writes the input anew, as the unit before does in a chain, so that caches hold it."""
        if self.graph is None:
            self.state = tree_map_only(Tensor, torch.clone, self.source)
            return
        leaves = zip(tree_leaves(self.state), tree_leaves(self.source), strict=True)
        for target, source in leaves:
            if isinstance(target, Tensor):
                target.copy_(source)

    def run(self) -> None:
        """One run; on a GPU it is only queued."""
        if self.graph is None:
            self.module(self.state)
        else:
            self.graph.replay()

    def _record(self) -> None:
        # warm-up on a side stream, as torch.cuda.graphs asks for
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                self.module(self.state)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.output = self.module(self.state)
        self.graph = graph


class Stopwatch(Protocol):
    """Times rounds."""

    def time(self, runners: Sequence[Runner]) -> list[Sample]:
        """Runs each once, in order, and says how long each took."""
        ...


class ThreadStopwatch:
    """For one thread on a CPU: its CPU clock.

    It is what a clock on the wall shows on an idle machine, and on a busy one it stands still while
    another process has the core.
    """

    def time(self, runners: Sequence[Runner]) -> list[Sample]:
        """See :class:`Stopwatch`."""
        samples = []
        for runner in runners:
            runner.refresh()
            start = time.thread_time_ns()
            runner.run()
            samples.append(Sample((time.thread_time_ns() - start) / 1e6))
        return samples


class WallStopwatch:
    """For several threads on a CPU: wall time, and whether any of them had to give up its core."""

    def time(self, runners: Sequence[Runner]) -> list[Sample]:
        """See :class:`Stopwatch`."""
        samples = []
        for runner in runners:
            runner.refresh()
            before = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            start = time.perf_counter_ns()
            runner.run()
            ms = (time.perf_counter_ns() - start) / 1e6
            after = resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
            samples.append(Sample(ms, interrupted=after > before))
        return samples


class CudaStopwatch:
    """For a GPU: events on its stream.

    Args:
        device: which one.
        queued: whether a round is queued while the device sleeps, so that launches, already as
            cheap as a graph's, are hidden altogether. Without graphs they are a part of the latency
            and stay in.
    """

    def __init__(self, device: torch.device, *, queued: bool) -> None:
        self.device = device
        self.queued = queued

    def time(self, runners: Sequence[Runner]) -> list[Sample]:
        """See :class:`Stopwatch`."""
        with torch.cuda.device(self.device):
            events = [(_event(), _event()) for _ in runners]
            torch.cuda.synchronize()
            if self.queued:
                torch.cuda._sleep(_QUEUE_CYCLES)
            for runner, (start, end) in zip(runners, events, strict=True):
                runner.refresh()
                start.record()
                runner.run()
                end.record()
            torch.cuda.synchronize()
            return [Sample(start.elapsed_time(end)) for start, end in events]


def _event() -> torch.cuda.Event:
    return torch.cuda.Event(enable_timing=True)


def stopwatch_for(setup: Setup) -> Stopwatch:
    """The stopwatch that suits a setup."""
    if setup.place.type == "cuda":
        return CudaStopwatch(setup.place, queued=setup.cuda_graphs)
    return ThreadStopwatch() if setup.threads == 1 else WallStopwatch()
