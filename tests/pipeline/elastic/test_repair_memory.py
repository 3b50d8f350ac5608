"""How many images repair looks at in a given memory."""

from dataclasses import replace
from pathlib import Path

import torch

from paretopath.elastic.repair.memory import LEAST_IMAGES, PeakMemory, images_that_fit
from paretopath.run import Run, assemble, load_model

KIB = 1024


def test_the_peak_is_of_what_is_alive_at_a_time():
    before = torch.zeros(256, device="meta")
    with PeakMemory() as memory:
        one = before + 1  # 1 KiB of its own
        view = one.view(16, 16)
        two = one + view.flatten()
        del one, view
        three = two * 2
        del two
    assert memory.peak == 2 * KIB
    assert three.untyped_storage().nbytes() == KIB


def test_what_operations_return_in_trees_counts_too():
    with PeakMemory() as memory:
        values, indices = torch.zeros(256).sort()
    assert memory.peak == KIB + values.nbytes + indices.nbytes


def test_images_that_fit_follow_from_their_size_alone(searched: Path):
    run = Run.open(searched, device="cpu")
    parts = assemble(run)
    model = load_model(parts.space, run.weights_file, run)
    image = torch.zeros(1, 1, 8, 8)
    with PeakMemory() as memory, torch.no_grad():
        model(image)
    assert images_that_fit(model, parts.space.full, image, 100 * memory.peak) == 100
    assert images_that_fit(model, parts.space.full, image, 1.0) == LEAST_IMAGES


def test_a_path_is_re_solved_on_as_many_images_as_fit(searched: Path):
    run = Run.open(searched, device="cpu")
    parts = assemble(run)
    model = load_model(parts.space, run.weights_file, run)
    assert len(parts.images._repair_images(model)) == run.recipe.calibration.images
    small = replace(parts.images, repair_bytes=1.0)
    assert len(small._repair_images(model)) == LEAST_IMAGES
