"""Splits that are fixed and batches that are in order: the digits, loaders."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from paretopath.data import load_data
from paretopath.data.splits import stratified
from paretopath.errors import InvalidValueError
from tests.pipeline.data.pictures import data, labels_of


def test_digits_are_scikit_learns_scaled_and_normalised() -> None:
    splits = load_data(data(mean=0.25, std=0.5), input_shape=(1, 8, 8))
    digits = load_digits()
    images, labels = next(iter(splits.loader("test", batch_size=5)))
    rows = splits.test.indices[:5]
    expected = (torch.from_numpy(digits.images[rows]).float()[:, None] / 16 - 0.25) / 0.5
    torch.testing.assert_close(images, expected)
    assert labels.tolist() == digits.target[rows].tolist()
    assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
    assert splits.class_names == tuple("0123456789")


def test_digits_splits_are_disjoint_complete_and_stratified() -> None:
    config = data(splits={"validation": 0.2, "test": 0.25})
    splits = load_data(config, input_shape=(1, 8, 8))
    parts = [splits.train.indices, splits.validation.indices, splits.test.indices]
    assert [len(part) for part in parts] == [989, 359, 449]
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(1797))
    for counts, share in zip(labels_of(splits).values(), (0.55, 0.2, 0.25), strict=True):
        for digit, total in enumerate(np.bincount(load_digits().target)):
            assert abs(counts[digit] - share * total) <= 2


def test_the_test_images_do_not_depend_on_the_share_of_validation() -> None:
    first = load_data(data(splits={"validation": 0.1, "test": 0.25}), input_shape=(1, 8, 8))
    second = load_data(data(splits={"validation": 0.3, "test": 0.25}), input_shape=(1, 8, 8))
    assert np.array_equal(first.test.indices, second.test.indices)


def test_splits_are_fixed_for_good_by_the_seed() -> None:
    # golden: whoever trained on a split must find it again, in every process and version
    splits = load_data(data(splits={"validation": 0.2, "test": 0.25}), input_shape=(1, 8, 8))
    assert splits.test.indices[:8].tolist() == [1, 4, 7, 10, 13, 16, 19, 24]
    assert splits.validation.indices[:8].tolist() == [5, 6, 21, 27, 29, 32, 50, 59]
    other = load_data(data(seed=1), input_shape=(1, 8, 8))
    assert not np.array_equal(splits.test.indices, other.test.indices)


def test_digits_fit_a_model_for_larger_colour_images() -> None:
    splits = load_data(data(), input_shape=(3, 32, 24))
    images, _ = next(iter(splits.loader("validation", batch_size=4)))
    assert images.shape == (4, 3, 32, 24)
    torch.testing.assert_close(images[:, 0], images[:, 2])


@given(
    counts=st.lists(st.integers(0, 40), min_size=1, max_size=6),
    shares=st.lists(st.floats(0, 0.5), min_size=0, max_size=2),
    seed=st.integers(0, 2**32 - 1),
)
def test_stratified_parts_partition_and_give_each_class_its_share(
    counts: list[int], shares: list[float], seed: int
) -> None:
    labels = np.repeat(np.arange(len(counts)), counts)
    np.random.default_rng(seed).shuffle(labels)
    sizes = [int(share * len(labels)) for share in shares]
    parts = stratified(labels, sizes, seed=seed)
    assert [len(part) for part in parts[:-1]] == sizes
    assert np.array_equal(np.sort(np.concatenate(parts)), np.arange(len(labels)))
    if sizes:
        for label, count in enumerate(counts):
            share = sizes[0] * count / max(len(labels), 1)
            assert abs(np.sum(labels[parts[0]] == label) - share) <= 1


def test_stratified_refuses_more_than_there_is() -> None:
    with pytest.raises(InvalidValueError, match=r"at most 3 images together, but got \[2, 2\]"):
        stratified(np.zeros(3, np.int64), [2, 2], seed=0)


# loaders


def test_a_shuffled_loader_repeats_itself_by_seed_and_epoch() -> None:
    splits = load_data(data(), input_shape=(1, 8, 8))

    def epochs(seed: int, count: int, start: int = 0) -> list[list[int]]:
        loader: Any = splits.loader("train", shuffle_seed=seed, batch_size=100)
        loader.batch_sampler.start_at(start, 0)
        return [torch.cat([labels for _, labels in loader]).tolist() for _ in range(count)]

    first, second = epochs(seed=0, count=2)
    assert first != second
    assert sorted(first) == sorted(second) == sorted(splits.train.targets.tolist())
    assert epochs(seed=0, count=2) == [first, second]
    assert epochs(seed=0, count=1, start=1) == [second]
    assert epochs(seed=1, count=1) != [first]


def test_a_loader_without_a_seed_keeps_the_order_and_every_image() -> None:
    splits = load_data(data(), input_shape=(1, 8, 8))
    loader = splits.loader("validation", batch_size=64)
    for _ in range(2):
        seen = torch.cat([labels for _, labels in loader])
        assert torch.equal(seen, splits.validation.targets)


def test_a_small_last_batch_can_be_dropped_unless_it_is_all_there_is() -> None:
    splits = load_data(data(), input_shape=(1, 8, 8))
    sizes = [len(y) for _, y in splits.loader("train", batch_size=100, drop_last=True)]
    assert set(sizes) == {100}
    alone = splits.loader("train", batch_size=5000, drop_last=True)
    assert [len(y) for _, y in alone] == [len(splits.train)]


def test_batch_sizes_come_from_the_recipe() -> None:
    splits = load_data(data(batch_size=32, eval_batch_size=128), input_shape=(1, 8, 8))
    assert len(next(iter(splits.loader("train")))[1]) == 32
    assert len(next(iter(splits.loader("calibration")))[1]) == 128


def test_an_unknown_split_names_the_nearest() -> None:
    splits = load_data(data(), input_shape=(1, 8, 8))
    with pytest.raises(InvalidValueError, match=r"there is no split 'valid'.*did you mean 'valida"):
        splits.loader("valid")  # type: ignore[arg-type]
