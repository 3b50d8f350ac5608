"""The code that the documentation shows of deploying runs as it stands."""

import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

from paretopath import jobs
from paretopath.run import Run

ROOT = Path(__file__).parents[3]
SECTIONS = {"docs/deploy.md": "# Deploying", "README.md": "## Deploy\n"}


def blocks(page: str) -> list[str]:
    """The Python code of a page's part about deploying."""
    text = (ROOT / page).read_text(encoding="utf-8").partition(SECTIONS[page])[2]
    return re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)


@pytest.mark.parametrize("page", SECTIONS)
def test_the_code_of_a_page_runs(
    page: str, searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").mkdir()
    jobs.exits_run(Run.open(shutil.copytree(searched, tmp_path / "runs" / "digits_vit")))
    digits = load_digits()
    pixels = (digits.images * 255 / 16).astype(np.uint8)
    Image.fromarray(pixels[0]).save("digit.png")
    images = (torch.from_numpy(pixels[:64]).float()[:, None] / 255 - 0.305) / 0.376
    names: dict[str, Any] = {"images": images, "labels": torch.from_numpy(digits.target[:64])}
    found = blocks(page)
    assert found
    for block in found:
        exec(compile(block, page, "exec"), names)
    assert names["logits"].shape[1] == 10
