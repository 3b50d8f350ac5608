"""Inputs of every kind, broken ones named: what is solved from their moments is finite."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from paretopath.calibration.elimination import Eliminated, eliminate
from paretopath.elastic.compensation import Compensation
from paretopath.elastic.ridge import ridged
from paretopath.errors import InvalidValueError


@st.composite
def inputs(draw: st.DrawFn) -> Tensor:
    """Rows (n, 8) of inputs: few or many; each column random, zero, constant, or another's copy."""
    generator = torch.Generator().manual_seed(draw(st.integers(0, 99)))
    x = torch.randn(draw(st.sampled_from([1, 2, 40])), 8, generator=generator)
    for column in range(8):
        kind = draw(st.sampled_from(["random", "zero", "constant", "copy", "huge", "tiny"]))
        scale = {"zero": 0.0, "huge": 1e12, "tiny": 1e-18}.get(kind, 1.0)
        x[:, column] = x[:, 0] if kind == "copy" else x[:, column] * scale
        if kind == "constant":
            x[:, column] = 3.0
    return x


@settings(max_examples=60, deadline=None)
@given(inputs(), st.sampled_from([1e-30, 1e-9, 1e-4]))
def test_whatever_the_inputs_are_channels_get_an_order_and_weights(x: Tensor, ridge: float) -> None:
    covariance = torch.cov(x.T, correction=0).float()
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    for width in (1, 2):
        blocks = torch.arange(8).reshape(-1, width)
        (order,) = eliminate({"a": Eliminated(weight, covariance, ridge)}, [{"a": blocks}])
        assert sorted(order.tolist()) == list(range(len(blocks)))
    layer = Compensation(x.mean(0), covariance, segments=[8], ridge=ridge)
    for kept in range(1, 8):
        solved, bias = layer.solve(weight, None, (kept,))
        assert bias is not None and torch.isfinite(solved).all() and torch.isfinite(bias).all()


def test_inputs_that_never_change_are_made_up_for_by_the_bias() -> None:
    x = torch.full((5, 4), 2.0)
    layer = Compensation(x.mean(0), torch.zeros(4, 4), segments=[4])
    weight, bias = layer.solve(torch.ones(1, 4), None, (1,))
    assert bias is not None
    torch.testing.assert_close(x[:, :1] @ weight.T + bias, torch.full((5, 1), 8.0))


def test_moments_that_are_not_finite_are_named() -> None:
    with pytest.raises(InvalidValueError, match="inputs must be finite, but are not"):
        ridged(torch.tensor([[float("inf")]]), 1e-4)
