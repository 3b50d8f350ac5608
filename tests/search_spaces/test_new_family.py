"""The page about a new family: its example holds the contract, and runs the whole way."""

import re
import sys
from pathlib import Path
from types import ModuleType

import pytest

from paretopath import DynamicModel, jobs, load_recipe
from paretopath.run import Run, build_space, open_images

PAGE = (Path(__file__).parents[2] / "docs" / "new_family.md").read_text(encoding="utf-8")
FILES = dict(re.findall(r'```\w+ title="([\w.]+)"\n(.*?)```', PAGE, flags=re.DOTALL))


def module(file: str) -> ModuleType:
    """A file of the page, imported."""
    found = ModuleType(file.removesuffix(".py"))
    sys.modules[found.__name__] = found
    exec(compile(FILES[file], file, "exec"), found.__dict__)
    return found


cifar_resnet = module("cifar_resnet.py")
TestCifarResNet = module("test_cifar_resnet.py").TestCifarResNet


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    folder = tmp_path_factory.mktemp("new_family")
    (folder / "recipe.yaml").write_text(FILES["cifar_resnet.yaml"])
    run = Run.start(folder / "run", load_recipe(folder / "recipe.yaml"), device="cpu")
    jobs.prepare_weights(run)
    jobs.search_run(run)
    return run


def test_its_recipe_is_searched_and_deployed(run: Run) -> None:
    assert run.front().full.accuracy > 0.7  # chance is 0.1
    dynamic = DynamicModel.load(run.directory)
    data = open_images(run.recipe, build_space(run.recipe))
    images, labels = next(iter(data.loader("test", batch_size=256)))
    cheapest, dearest = dynamic.points[0], dynamic.points[-1]
    for budget in (cheapest.energy_mj, dearest.energy_mj):
        point = dynamic.choose(energy_mj=budget)
        assert point.accuracy >= cheapest.accuracy and point.energy_mj <= budget
        logits = dynamic(images, energy_mj=budget)
        assert dynamic.path == point.path
        right = (logits.argmax(1) == labels).double().mean().item()
        assert right == pytest.approx(point.accuracy, abs=0.15)
    logits, exits = dynamic.classify_early(images, threshold=0.9)
    assert len(set(exits.tolist())) > 1
    assert (logits.argmax(1) == labels).double().mean() > 0.7
