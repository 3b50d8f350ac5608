"""What a result was measured on, and where results go."""

import json
import os
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from paretopath.devices import has_bfloat16

RESULTS = Path(__file__).parent / "results"


def hardware() -> dict[str, Any]:
    """Processor, GPU, threads and versions."""
    model = platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        model = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    return {
        "cpu": model,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": gpu,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "timm", "optuna", "numpy")},
        "date": time.strftime("%Y-%m-%d"),
    }


def fast_forward() -> torch.autocast:
    """Forward passes in bfloat16, where this CPU computes in it."""
    return torch.autocast("cpu", torch.bfloat16, enabled=has_bfloat16(torch.device("cpu")))


def save(name: str, content: dict[str, Any]) -> None:
    """Writes a result with its hardware beside the others."""
    RESULTS.mkdir(exist_ok=True)
    text = json.dumps({"hardware": hardware(), **content}, indent=1, ensure_ascii=False)
    (RESULTS / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def median(values: list[float]) -> float:
    """The middle value."""
    return sorted(values)[len(values) // 2]
