"""Every recipe that is shipped: what it names exists and fits together, without weights or data."""

from pathlib import Path

import pytest
import torch
from torchvision import tv_tensors

from paretopath.data.loading import normalisation
from paretopath.data.transforms import build_transform
from paretopath.elastic import ElasticSpace
from paretopath.elastic.registry import create_space
from paretopath.recipe import Recipe, load_recipe
from paretopath.tasks.detection.objects import Objects, RawDetections
from paretopath.tasks.registry import create_task
from paretopath.tracing import build_on_meta

FILES = sorted((Path(__file__).parents[3] / "recipes").glob("*.yaml"))
README = (Path(__file__).parents[3] / "README.md").read_text(encoding="utf-8")


@pytest.fixture(params=FILES, ids=[file.stem for file in FILES])
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(request.param)


SPACES: dict[str, ElasticSpace] = {}


def space_of(recipe: Recipe) -> ElasticSpace:
    """Its space, made once."""
    if recipe.name not in SPACES:
        SPACES[recipe.name] = create_space(recipe.space.name, **recipe.space.options)
    return SPACES[recipe.name]


def test_its_space_builds_and_runs_both_ends(recipe: Recipe) -> None:
    space = space_of(recipe)
    model = build_on_meta(space)
    images = torch.empty(1, *space.input_shape, device="meta")
    for path in (space.full, space.smallest):
        with model.active(path), torch.no_grad():
            output = model(images)
        if recipe.task.name == "detection":
            assert isinstance(output, RawDetections)
        else:
            assert output.shape[1] == space.num_classes


def test_its_transforms_give_what_the_space_takes(recipe: Recipe) -> None:
    if recipe.data is None:
        assert recipe.accuracy.source == "predictor"
        return
    space = space_of(recipe)
    channels, *size = space.input_shape
    masks = recipe.task.name == "segmentation"
    given = [size[0] + 20, size[1] + 40] if "/" in recipe.data.source else size
    image = torch.zeros(channels, *given, dtype=torch.uint8)
    mask = tv_tensors.Mask(torch.zeros(*given, dtype=torch.int64))
    for specs in (recipe.data.transforms.train, recipe.data.transforms.evaluation):
        if specs is None:
            continue
        transform = build_transform(specs, (size[0], size[1]))
        if masks:
            image_out, mask_out = transform(tv_tensors.Image(image), mask)
            assert mask_out.shape == tuple(size)
        else:
            image_out = transform(image)
        assert image_out.shape == space.input_shape
    normalise = normalisation(recipe.data, channels)
    assert normalise(image[None]).shape == (1, *image.shape)


def test_its_task_gives_a_loss(recipe: Recipe) -> None:
    space = space_of(recipe)
    task = create_task(recipe.task, training=recipe.train)
    if task.name == "detection":
        if max(space.input_shape) > 256:
            pytest.skip("a loss of so large a model takes too long here")
        output, target = space.build()(torch.zeros(1, *space.input_shape)), one_object()
    elif task.name == "segmentation":
        output, target = torch.zeros(2, space.num_classes, 4, 4), torch.ones(2, 8, 8).long()
    else:
        output, target = torch.zeros(2, space.num_classes), torch.ones(2).long()
    assert task.loss(output, target) > 0


def one_object() -> Objects:
    return Objects(
        boxes=torch.tensor([[[8.0, 8.0, 24.0, 20.0]]]),
        labels=torch.tensor([[1]]),
        crowd=torch.tensor([[False]]),
        areas=torch.tensor([[192.0]]),
        scale=torch.ones(1, 2),
        original=torch.tensor([[64, 64]]),
    )


def test_the_readme_lists_it(recipe: Recipe) -> None:
    assert f"| [{recipe.name}.yaml](recipes/{recipe.name}.yaml) |" in README
