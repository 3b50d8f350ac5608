"""Where and how networks are run to be measured: device, threads, batch, number format."""

import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, get_args

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from paretopath.devices import find_device
from paretopath.elastic import State
from paretopath.errors import InvalidValueError, nearest

Precision = Literal["float32", "bfloat16", "float16"]


@dataclass(frozen=True)
class Setup:
    """How networks are run. Make one with :meth:`of`, which checks.

    Attributes:
        device: ``cpu`` or ``cuda:I``.
        threads: that torch computes with on a CPU.
        batch_size: images a run.
        precision: ``float32`` as the weights are, or the type that autocast computes in.
        channels_last: whether images and convolutions keep their channels together in memory.
        cuda_graphs: whether a GPU replays recorded graphs, so that launching kernels costs next to
            nothing.
    """

    device: str
    threads: int
    batch_size: int
    precision: Precision
    channels_last: bool
    cuda_graphs: bool

    @classmethod
    def of(
        cls,
        *,
        device: str = "cpu",
        threads: int | None = None,
        batch_size: int = 1,
        precision: Precision = "float32",
        channels_last: bool = False,
        cuda_graphs: bool = True,
    ) -> Self:
        """A setup of this machine; the arguments are described at the attributes.

        Args:
            threads: as many as torch is set to if None.

        Raises:
            InvalidValueError: an argument outside its legal values, or a device that is not here.
        """
        for name, value in (("threads", threads), ("batch_size", batch_size)):
            if value is not None and (type(value) is not int or value < 1):
                raise InvalidValueError(
                    f"{name} must be a whole number of at least 1, got {value!r}"
                )
        if precision not in get_args(Precision):
            raise InvalidValueError(
                f"there is no precision {precision!r}; {nearest(precision, get_args(Precision))}"
            )
        place = _placed(device)
        return cls(
            device=str(place),
            threads=threads or torch.get_num_threads(),
            batch_size=batch_size,
            precision=precision,
            channels_last=channels_last,
            cuda_graphs=cuda_graphs and place.type == "cuda",
        )

    @property
    def place(self) -> torch.device:
        """The device, as torch names it."""
        return torch.device(self.device)

    @property
    def name(self) -> str:
        """What people read: ``AMD EPYC, 1 thread, batch 8, bfloat16``."""
        parts = [device_name(self.place)]
        if self.place.type == "cpu":
            parts.append(f"{self.threads} thread{'s' if self.threads > 1 else ''}")
        parts.append(f"batch {self.batch_size}")
        parts += [self.precision] if self.precision != "float32" else []
        parts += ["channels last"] if self.channels_last else []
        parts += ["eager"] if self.place.type == "cuda" and not self.cuda_graphs else []
        return ", ".join(parts)

    def describe(self) -> dict[str, Any]:
        """All that a latency depends on beside the network: options, device, libraries, driver."""
        options = asdict(self)
        del options["device"]  # its name says it: one of several equal GPUs is as good as another
        if self.place.type == "cuda":
            del options["threads"]
        return {"name": device_name(self.place)} | options | _versions(self.place)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Inside: the setup's threads and autocast, and no gradients."""
        threads = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            with torch.no_grad(), self._autocast():
                yield
        finally:
            torch.set_num_threads(threads)

    def _autocast(self) -> AbstractContextManager[Any]:
        if self.precision == "float32":
            return nullcontext()
        dtype: torch.dtype = getattr(torch, self.precision)
        # no cache of cast weights: it lives as long as the session, longer than one run
        return torch.autocast(self.place.type, dtype=dtype, cache_enabled=False)

    def prepare(self, module: nn.Module) -> nn.Module:
        """Brings a module to the device, evaluation mode and the memory format, in place."""
        module = module.to(self.place).eval()
        # the memory format alone is no overload that nn.Module.to's annotations know
        return module.to(memory_format=torch.channels_last) if self.channels_last else module  # type: ignore[call-overload,no-any-return]

    def place_state(self, state: State) -> State:
        """A state on the device; 4-D tensors in the chosen memory format."""

        def moved(tensor: Tensor) -> Tensor:
            tensor = tensor.to(self.place)
            if self.channels_last and tensor.ndim == 4:
                return tensor.contiguous(memory_format=torch.channels_last)
            return tensor.contiguous()

        return tree_map_only(Tensor, moved, state)


def _placed(name: str) -> torch.device:
    place = find_device(name)
    if place.type == "cuda" and place.index is None:
        return torch.device("cuda", torch.cuda.current_device())
    return place


def device_name(place: torch.device) -> str:
    """The device's own name: ``NVIDIA H100 80GB HBM3``, ``AMD EPYC``."""
    if place.type == "cuda":
        return torch.cuda.get_device_name(place)
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass  # not Linux
    return platform.processor() or platform.machine()


def _versions(place: torch.device) -> dict[str, Any]:
    versions: dict[str, Any] = {
        "torch": torch.__version__,
        "float32_matmul": torch.get_float32_matmul_precision(),
    }
    if place.type == "cpu":
        return versions | {
            "instructions": torch.backends.cpu.get_cpu_capability(),
            "cores": os.cpu_count(),
        }
    return versions | {
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "cudnn_benchmark": torch.backends.cudnn.benchmark,
        "cudnn_tf32": torch.backends.cudnn.allow_tf32,
        "driver": _driver(),
    }


def _driver() -> str | None:
    try:
        return Path("/proc/driver/nvidia/version").read_text().splitlines()[0].strip()
    except (OSError, IndexError):
        return None
