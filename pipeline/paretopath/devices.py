"""Devices by the names that people type, and whether they are here."""

import re
from typing import TYPE_CHECKING

from paretopath.errors import InvalidValueError, nearest

if TYPE_CHECKING:
    import torch


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
