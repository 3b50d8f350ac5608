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
    try:
        commit = _git("describe", "--always", "--abbrev=12")
        changed = _git("status", "--porcelain", "--untracked-files=no")
    except (OSError, subprocess.SubprocessError):
        return None
    return f"{commit}-dirty" if commit and changed else commit or None


def _git(*arguments: str) -> str:
    """What git says of this code's checkout, in which nothing is written or locked."""
    done = subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=10,
        check=True,
    )
    return done.stdout.strip()
