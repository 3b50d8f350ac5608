"""The size at which any model sees its images, as a decision."""

import pytest
import torch

from paretopath.errors import InvalidValueError
from search_spaces.resizing import resized
from tests.search_spaces.blocks_models import ATTENTION, SMALL, make_space, original_of


@pytest.mark.parametrize("name", ["resnet", "one's own, with long skips"])
def test_a_path_at_another_size_is_the_original_on_smaller_images(name: str) -> None:
    space = make_space(**SMALL[name], input_scales=[0.75, 1.0])
    model = space.build()
    images = torch.randn(2, *space.input_shape)
    path = space.canonical({"input_scale": 0.75})
    with torch.no_grad(), model.active(path):
        expected = original_of(model)(resized(images, 0.75))
        torch.testing.assert_close(model(images), expected, rtol=1e-5, atol=1e-5)


def test_sizes_that_a_model_can_not_take_are_refused() -> None:
    with pytest.raises(InvalidValueError, match="input_scales: model can't take images of 8 x 8 "):
        make_space(**ATTENTION["timm's"], input_scales=[0.5, 1.0])
