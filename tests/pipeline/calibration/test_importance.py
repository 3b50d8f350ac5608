"""Importance of channels against what removing them does."""

import warnings
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
import torch_pruning as tp
from torch import Tensor, nn

import search_spaces
from paretopath.calibration.importance import sort_by_magnitude, sort_by_taylor
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.errors import InvalidValueError

CLASSES = 5


def vit() -> ElasticSpace:
    arguments = {"img_size": 16, "patch_size": 4, "embed_dim": 32, "depth": 2, "num_heads": 4}
    return search_spaces.create("vit", arguments={**arguments, "num_classes": CLASSES})


def segformer() -> ElasticSpace:
    arguments = {
        "depths": (1, 1, 1, 1),
        "hidden_sizes": (8, 16, 24, 32),
        "num_attention_heads": (1, 2, 2, 4),
        "decoder_hidden_size": 24,
    }
    return search_spaces.create(
        "segformer", variant=None, arguments=arguments, image_size=32, num_classes=CLASSES
    )


def upernet() -> ElasticSpace:
    backbone = {"embed_dim": 12, "depths": (1, 1), "num_heads": (1, 2), "window_size": 4}
    arguments = {"hidden_size": 16, "pool_scales": (1, 2)}
    return search_spaces.create(
        "upernet_swin",
        variant=None,
        backbone=backbone,
        arguments=arguments,
        image_size=32,
        num_classes=CLASSES,
    )


def ofa() -> ElasticSpace:
    return search_spaces.create("ofa_resnet50", resolutions=[64], num_classes=CLASSES)


def batches(space: ElasticSpace, count: int = 2) -> list[tuple[Tensor, Tensor]]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(count, 3, *space.input_shape, generator=generator)
    targets = torch.randint(CLASSES, (count, 3), generator=generator)
    return list(zip(images, targets, strict=True))


def loss(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output.flatten(2).mean(2) if output.ndim > 2 else output, target)


def built(space: ElasticSpace) -> ElasticModel:
    torch.manual_seed(0)
    model = space.build()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return model


@pytest.mark.parametrize("family", [vit, segformer, upernet, ofa])
def test_sorting_leaves_the_full_path_as_it_is(family: object) -> None:
    space = family()  # type: ignore[operator]
    model, images = built(space), batches(space)[0][0]
    with torch.no_grad():
        before = model(images)
    sort_by_taylor(model, batches(space), loss)
    assert all(parameter.grad is None for parameter in model.parameters())
    sort_by_magnitude(model)
    with torch.no_grad():
        torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-5)


def test_taylor_puts_channels_first_that_the_loss_feels() -> None:
    space = vit()
    model = built(space)
    mlp = model.units["blocks_1"].block.mlp
    hidden = mlp.fc1.out_features
    unread = torch.arange(0, hidden, 2)
    with torch.no_grad():  # large weights that go nowhere: magnitude would keep them
        mlp.fc1.weight[unread] *= 30
        mlp.fc2.weight[:, unread] = 0
        before = model(batches(space)[0][0])
    for sort, keeps_the_read in (
        (lambda: sort_by_magnitude(model), False),
        (lambda: sort_by_taylor(model, batches(space), loss), True),
    ):
        sort()
        with torch.no_grad(), model.active({"blocks.1.mlp_ratio": 0.5}):
            same = torch.allclose(model(batches(space)[0][0]), before, atol=1e-5)
        assert same == keeps_the_read


def test_taylor_scores_are_the_products_of_weights_and_gradients() -> None:
    space = vit()
    model = built(space)
    block = model.units["blocks_0"].block
    reference: nn.Module = model.extract(space.full)
    own = reference.get_submodule("blocks_0.mlp")
    expected = torch.zeros(own.fc1.out_features)
    for images, targets in batches(space):
        reference.zero_grad()
        loss(reference(images), targets).backward()
        products = [(own.fc1.weight * own.fc1.weight.grad).sum(1)]
        products += [(own.fc2.weight * own.fc2.weight.grad).sum(0)]
        expected += torch.stack([product.detach().abs() for product in products]).mean(0)
    before = block.mlp.fc1.weight.detach().clone()
    sort_by_taylor(model, batches(space), loss)
    torch.testing.assert_close(block.mlp.fc1.weight.detach(), before[expected.argsort().flip(0)])


@pytest.mark.parametrize(("family", "layer"), [(vit, "mlp.fc1"), (segformer, "layer.mlp.fc1")])
def test_the_order_is_torch_prunings(family: Callable[[], ElasticSpace], layer: str) -> None:
    space = family()
    model = built(space)
    sort_by_magnitude(model)
    state = torch.zeros(1, *space.input_shape)
    checked = 0
    for step in model.steps(space.full):
        plain = step.extract().eval()
        maker = dict(plain.named_modules()).get(layer)
        if maker is not None:
            with warnings.catch_warnings():  # of parameters outside the layers that it knows
                warnings.simplefilter("ignore")
                graph = tp.DependencyGraph().build_dependency(plain, example_inputs=state)
            prune = tp.prune_linear_out_channels
            group = graph.get_pruning_group(maker, prune, list(range(maker.out_features)))
            scores = tp.importance.GroupMagnitudeImportance(normalizer=None)(group)
            assert (scores.diff() <= 1e-5).all(), step.unit.name
            checked += 1
        with torch.no_grad():
            state = plain(state)
    assert checked >= 2


def test_channels_matter_by_what_goes_with_them_alone() -> None:
    orders = []
    for factor in (1.0, 30.0):
        model = built(upernet())
        branches = model.chain[-1].head.psp_modules
        marked = branches.blocks[0].layers[1].conv.weight
        with torch.no_grad():  # the other branch is beside it, and coupled to none of its channels
            branches.blocks[1].layers[1].conv.weight[::2] *= factor
        before = marked.detach().clone()
        sort_by_magnitude(model)
        orders.append([int((before == row).flatten(1).all(1).nonzero()) for row in marked.detach()])
    assert orders[0] == orders[1] != sorted(orders[0])


def test_frozen_weights_are_sorted_and_stay_frozen() -> None:
    space = vit()
    model, frozen = built(space), built(space).requires_grad_(False)
    for each in (model, frozen):
        sort_by_taylor(each, batches(space), loss)
    assert not any(parameter.requires_grad for parameter in frozen.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(frozen.state_dict()[name], tensor)


def test_taylor_without_images_is_refused() -> None:
    with pytest.raises(InvalidValueError, match="at least one batch"):
        sort_by_taylor(built(vit()), [], loss)
