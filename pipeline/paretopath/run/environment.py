"""What a result depends on beside its recipe."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

LIBRARIES = (
    "torch",
    "timm",
    "transformers",
    "optuna",
    "pytorch-lightning",
    "numpy",
)


def environment(device: torch.device) -> dict[str, Any]:
    """What a result depends on beside its recipe: versions, git hash, device."""
    return {
        "python": platform.python_version(),
        "device": _device_name(device),
        "git": _git_hash(),
        **{name: _version(name) for name in ("paretopath", *LIBRARIES)},
    }


def code_version() -> str | None:
    """Which code this is; None where it was changed since its commit, so that nothing says so."""
    git = _git_hash()
    if git is not None and git.endswith("-dirty"):
        return None
    return f"{_version('paretopath')} {git} torch {_version('torch')}"


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _device_name(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{platform.machine()} CPU, {os.cpu_count()} cores"


def _git_hash() -> str | None:
    """The commit of this code, marked if it was changed since; None outside a git checkout."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip() or None
