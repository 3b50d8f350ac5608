"""Least-squares compensation against an independent solver, and what elastic layers do with it."""

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from paretopath.elastic import ElasticConv2d, ElasticLinear
from paretopath.elastic.compensation import Compensation, Derived, compensate


def correlated(n: int, k: int, *, rank: int | None = None) -> Tensor:
    """Rows (n, k) of correlated inputs with a mean."""
    generator = torch.Generator().manual_seed(0)
    factors = torch.randn(n, rank or k, generator=generator)
    x = factors @ torch.randn(rank or k, k, generator=generator)
    return x + torch.randn(k, generator=generator)


def compensation(x: Tensor, *segments: int, ridge: float = 1e-9) -> Compensation:
    covariance = torch.cov(x.double().T, correction=0)
    return Compensation(
        x.double().mean(0).float(), covariance.float(), segments=segments, ridge=ridge
    )


def test_solution_is_the_least_squares_one() -> None:
    torch.manual_seed(0)
    x = correlated(500, 12)
    layer = ElasticLinear.of(nn.Linear(12, 5))
    compensate(layer, compensation(x, 12))
    kept = torch.cat([x[:, :7], torch.ones(500, 1)], 1)
    expected = torch.linalg.lstsq(kept.double(), layer(x).detach().double()).solution
    weight, bias = layer.operands(7, 5)
    torch.testing.assert_close(weight.detach().T, expected[:7].float(), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(bias.detach(), expected[7].float(), rtol=1e-3, atol=1e-4)


def test_inputs_that_follow_from_the_kept_ones_cost_nothing() -> None:
    torch.manual_seed(0)
    x = correlated(300, 24, rank=6)
    layer = ElasticLinear.of(nn.Linear(24, 8))
    plain = F.linear(x[:, :6], *layer.operands(6, 8))
    compensate(layer, compensation(x, 24))
    expected = layer(x)
    assert (layer(x[:, :6]) - expected).abs().max() < 1e-2 * expected.std()
    assert (plain - expected).abs().max() > expected.std()


def test_segments_of_a_concatenation_keep_a_prefix_each() -> None:
    torch.manual_seed(0)
    x = correlated(400, 10)
    conv = ElasticConv2d.of(nn.Conv2d(10, 4, 1, bias=False))
    conv.segments = (6, 4)
    compensate(conv, compensation(x, 6, 4))
    chosen = [0, 1, 6, 7, 8]
    images = x.T.reshape(1, 10, 20, 20)
    expected = torch.linalg.lstsq(
        torch.cat([x[:, chosen], torch.ones(400, 1)], 1).double(),
        conv(images).detach().flatten(2)[0].T.double(),
    ).solution
    weight, bias = conv.operands((2, 3), 4)
    torch.testing.assert_close(
        weight.detach()[..., 0, 0].T, expected[:5].float(), rtol=1e-3, atol=1e-4
    )
    torch.testing.assert_close(bias.detach(), expected[5].float(), rtol=1e-3, atol=1e-4)
    out = conv(images[:, chosen], kept=(2, 3))
    assert out.shape == (1, 4, 20, 20)


def test_filter_taps_are_solved_each() -> None:
    torch.manual_seed(0)
    x = correlated(144, 8, rank=4)
    images = x.T.reshape(1, 8, 12, 12)
    conv = ElasticConv2d.of(nn.Conv2d(8, 3, 3))
    compensate(conv, compensation(x, 8))
    torch.testing.assert_close(conv(images[:, :4]), conv(images), rtol=1e-2, atol=1e-2)


def test_full_width_uses_the_weights_as_they_are() -> None:
    layer = ElasticLinear.of(nn.Linear(6, 3))
    compensate(layer, compensation(correlated(50, 6), 6))
    weight, bias = layer.operands(6, 3)
    assert weight.data_ptr() == layer.weight.data_ptr() and bias.data_ptr() == layer.bias.data_ptr()


def test_switching_back_and_forth_solves_once() -> None:
    layer = ElasticLinear.of(nn.Linear(6, 3))
    compensate(layer, compensation(correlated(50, 6), 6))
    with torch.inference_mode():
        first = layer.operands(4, 3)[0]
        layer.operands(5, 3)
        assert layer.operands(4, 3)[0].data_ptr() == first.data_ptr()


def test_changed_weights_are_solved_anew() -> None:
    layer = ElasticLinear.of(nn.Linear(6, 3))
    compensate(layer, compensation(correlated(50, 6), 6))
    with torch.no_grad():
        before = layer.operands(4, 3)[0].clone()
        layer.weight.mul_(2.0)
        torch.testing.assert_close(layer.operands(4, 3)[0], 2 * before)


def test_training_a_narrow_form_trains_the_shared_weights() -> None:
    x = correlated(50, 6)
    layer = ElasticLinear.of(nn.Linear(6, 3))
    compensate(layer, compensation(x, 6))
    layer(x[:, :4]).square().mean().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().min() > 0
    assert not [p for p in layer.parameters() if p.grad is None]


def test_a_copy_gives_the_same_solution() -> None:
    layer = ElasticLinear.of(nn.Linear(6, 3))
    compensate(layer, compensation(correlated(50, 6), 6))
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(layer).operands(4, 3)[0], layer.operands(4, 3)[0])


@pytest.mark.parametrize("ridge", [1e-6, 1e-3])
def test_ridge_keeps_copied_inputs_solvable(ridge: float) -> None:
    x = correlated(50, 4)
    x = torch.cat([x, x], 1)
    layer = ElasticLinear.of(nn.Linear(8, 3))
    compensate(layer, compensation(x, 8, ridge=ridge))
    expected = layer(x)
    error = (layer(x[:, :6]) - expected).abs().max() / expected.std()
    assert error < 30 * ridge


def test_what_is_derived_from_a_freed_tensor_is_not_taken_for_its_successors() -> None:
    derived = Derived()
    for value in range(20):
        source = torch.full((3,), float(value))
        (made,) = derived.get("key", [source], lambda source=source: (source.clone(),))
        assert made.tolist() == [value] * 3
        del source
