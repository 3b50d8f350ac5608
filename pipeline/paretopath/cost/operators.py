"""How long each kind of operator takes while a path runs."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.profiler import ProfilerActivity
from torch.utils._python_dispatch import TorchDispatchMode

from paretopath.cost.device_setup import Setup
from paretopath.elastic import State
from paretopath.tracing import KINDS, Kind

_LINEAR = frozenset({"mm", "addmm", "_addmm_activation", "linear", "mkldnn_linear"})
_MATMUL = frozenset({"bmm", "baddbmm"})


def kind_of(operator: str) -> Kind:
    """The kind of an operator by torch's name of it, as tracing sorts them.

    Fused attention, two matrix products and the softmax between them, is a matmul.
    """
    if operator in _LINEAR:
        return "linear"
    if operator in _MATMUL or "attention" in operator:
        return "matmul"
    if any(word in operator for word in ("convolution", "conv2d", "conv_depthwise")):
        return "convolution"
    return "normalisation" if "norm" in operator else "other"


def time_kinds(
    modules: Sequence[nn.Module], state: State, setup: Setup, *, runs: int
) -> dict[Kind, float]:
    """Milliseconds a run by kind of operator, medians over runs, for a chain of modules.

    What passes between operators (Python, the dispatcher, views) is in none of them.

    Args:
        modules: on the device, as :meth:`Setup.prepare` leaves them; each takes what the one before
            gives.
        state: the first one's input.
        setup: where and how.
        runs: how often the chain runs, after one run that does not count.
    """
    time_once = _cuda_times if setup.place.type == "cuda" else _cpu_times
    with setup.session():
        rounds = [time_once(modules, state, setup) for _ in range(runs + 1)][1:]
    return {kind: float(np.median([times[kind] for times in rounds])) for kind in KINDS}


def _cpu_times(modules: Sequence[nn.Module], state: State, setup: Setup) -> dict[Kind, float]:
    timer = _OperatorTimer(single=setup.threads == 1)
    with timer:
        for module in modules:
            state = module(state)
    return timer.times


class _OperatorTimer(TorchDispatchMode):
    """Times each operator that does work, on a CPU; views do none.

    Args:
        single: whether torch computes in this thread alone, whose CPU clock then leaves out what
            other processes take.
    """

    def __init__(self, *, single: bool) -> None:
        super().__init__()
        self.times: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
        self._clock = time.thread_time_ns if single else time.perf_counter_ns

    def __torch_dispatch__(
        self,
        func: Any,
        types: Sequence[type],
        args: tuple[Any, ...] = (),
        kwargs: dict[str, Any] | None = None,
    ) -> Any:
        kwargs = kwargs or {}
        if func.is_view:
            return func(*args, **kwargs)
        start = self._clock()
        out = func(*args, **kwargs)
        elapsed = self._clock() - start
        self.times[kind_of(func._overloadpacket.__name__)] += elapsed / 1e6
        return out


def _cuda_times(modules: Sequence[nn.Module], state: State, setup: Setup) -> dict[Kind, float]:
    """Time in kernels, as the CUDA profiler attributes it to operators."""
    times: dict[Kind, float] = dict.fromkeys(KINDS, 0.0)
    activities = [ProfilerActivity.CPU, ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profiler:
        for module in modules:
            state = module(state)
        torch.cuda.synchronize(setup.place)
    for event in profiler.key_averages():
        namespace, _, operator = event.key.rpartition("::")
        # kernels and calls of the driver have their time counted under their operator
        if namespace and event.device_type.name == "CPU":
            times[kind_of(operator)] += event.self_device_time_total / 1e3
    return times
