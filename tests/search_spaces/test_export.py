"""Static models of every family run where PyTorch alone is, as exported programs."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch.export import Dim

from paretopath.elastic import ElasticSpace
from search_spaces.blocks.space import BlocksSpace
from search_spaces.ofa_resnet import OfaResNet50Space
from tests.pipeline.vit_family import vit_family
from tests.search_spaces import blocks_models as blocks
from tests.search_spaces import test_segformer as segformer
from tests.search_spaces import test_upernet as upernet
from tests.search_spaces import test_vit as vit

# timm and transformers too: what a static model is made of
READER = """
import sys
for name in ("paretopath", "pipeline", "search_spaces", "timm", "transformers"):
    sys.modules[name] = None
import torch
from safetensors.torch import load_file
for name in sys.argv[1:]:
    given = load_file(f"{name}.safetensors")
    run, outputs = torch.export.load(f"{name}.pt2").module(), given["outputs"]
    torch.testing.assert_close(run(given["images"][: len(outputs)]), outputs, rtol=1e-4, atol=1e-5)
    print(name)
"""


SPACES: dict[str, Callable[[], ElasticSpace]] = {
    "vit": vit.make_space,
    "family": vit_family,
    "segformer": segformer.small_space,
    "upernet": upernet.small_space,
    "blocks": lambda: BlocksSpace(**blocks.SMALL["one's own, with long skips"]),
    "ofa": lambda: OfaResNet50Space(resolutions=[32], num_classes=4),
}


def export(name: str, path: str, folder: Path, *, any_batch: bool) -> None:
    """As docs/deploy.md does it: the program, and images with what the static model gives."""
    space = SPACES[name]()
    static = space.build().extract(getattr(space, path))
    images = torch.randn(3, *space.input_shape)
    sizes = ({0: Dim.AUTO},) if any_batch else None
    program = torch.export.export(static, (images,), dynamic_shapes=sizes)
    torch.export.save(program, folder / f"{name}-{path}.pt2")
    with torch.inference_mode():
        outputs = static(images[:2] if any_batch else images).contiguous()
    save_file({"images": images, "outputs": outputs}, folder / f"{name}-{path}.safetensors")


@pytest.mark.parametrize(
    ("exported", "any_batch"),
    [
        (
            [("vit", "full"), ("family", "full"), ("segformer", "smallest"), ("blocks", "full")],
            True,
        ),
        ([("segformer", "full"), ("upernet", "smallest"), ("ofa", "smallest")], False),
    ],
)
def test_exported_models_need_pytorch_alone(
    exported: list[tuple[str, str]], any_batch: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    for name, path in exported:
        export(name, path, tmp_path, any_batch=any_batch)
    written = [f"{name}-{path}" for name, path in exported]
    done = subprocess.run(
        [sys.executable, "-c", READER, *written],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.split() == written, done.stderr
