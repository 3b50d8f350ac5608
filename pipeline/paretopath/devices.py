"""Devices by the names that people type, whether they are here, and memory on the CPU."""

import ctypes
import functools
import os
import re
from typing import TYPE_CHECKING

from paretopath.errors import InvalidValueError, nearest

if TYPE_CHECKING:
    import torch

# parameters of mallopt(3) and what they are set to; glibc's own variables for them end in "_"
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_KEEP = {_M_MMAP_MAX: 0, _M_TRIM_THRESHOLD: 2**31 - 1}
_TOLD = ("MALLOC_MMAP_MAX_", "MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_THRESHOLD_")


def check_device(name: str) -> str:
    """A device's name, if it is one; whether it is here takes torch, so it is not asked.

    Raises:
        InvalidValueError: not ``cpu``, ``cuda``, or ``cuda:1``.
    """
    if not re.fullmatch(r"cpu|cuda(:\d+)?", name):
        legal = nearest("cuda" if name == "gpu" else name, ["cpu", "cuda", "cuda:1"])
        raise InvalidValueError(f"there is no device {name!r}; {legal}")
    return name


def find_device(name: str | None = None) -> "torch.device":
    """A device of this machine; the first GPU if there is one, else the CPU, if none is named.

    Raises:
        InvalidValueError: no such name, or not here.
    """
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    place = torch.device(check_device(name) if name else "cuda" if count else "cpu")
    if place.type == "cuda" and (place.index or 0) >= count:
        seen = f"{count} CUDA device{'' if count == 1 else 's'}" if count else "no CUDA device"
        raise InvalidValueError(f"the device {name!r} is not here: torch sees {seen}")
    return place


def has_bfloat16(device: "torch.device") -> bool:
    """Whether a device computes in bfloat16 itself; one that doesn't takes longer than in float32.

    A CPU with AVX-512 alone takes three times as long for a linear layer.
    """
    import torch

    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    can = torch.cpu.get_capabilities().items()  # avx512_bf16, amx_bf16, …
    return any(yes for name, yes in can if name.endswith("bf16"))


def keep_freed_memory() -> bool:
    """Lets this process use freed memory again in place of giving it back to the kernel.

    glibc gives each tensor over 32 MB memory of its own from the kernel and returns it when the
    tensor is freed; every page of the next one is then cleared and mapped anew, which takes up to
    half of a model's time on a CPU (``benchmarks/allocator.py``). PyTorch's caching allocator does
    the same on a GPU; :func:`give_back_memory` is its ``empty_cache``.

    Every :class:`~paretopath.run.Run` asks for it; a server that deploys a model on a CPU may, too.
    Whoever has told glibc otherwise (``MALLOC_MMAP_MAX_``, ``MALLOC_TRIM_THRESHOLD_`` or
    ``MALLOC_MMAP_THRESHOLD_`` in the environment) is left alone.

    Returns:
        Whether it is so now; False where the C library is another, or does not do it.
    """
    library = _glibc()
    return library is not None and all(
        library.mallopt(name, value) == 1 for name, value in _KEEP.items()
    )


def give_back_memory() -> None:
    """Gives what is kept and not in use back to the kernel: between pieces of work, not in them."""
    library = _glibc()
    if library is not None:
        library.malloc_trim(0)


@functools.cache
def _glibc() -> ctypes.CDLL | None:
    """This process's C library, if it is glibc and nobody has told it how to keep memory."""
    if any(name in os.environ for name in _TOLD):
        return None
    try:
        library = ctypes.CDLL(None)
        library.gnu_get_libc_version  # noqa: B018  musl and macOS lack it
    except (AttributeError, OSError, TypeError):  # TypeError: Windows has no library None
        return None
    return library
