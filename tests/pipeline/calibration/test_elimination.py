"""The elimination order against brute force."""

import pytest
import torch
from torch import Tensor

from paretopath.calibration.elimination import Eliminated, eliminate

RIDGE = 1e-6


def covariance_of(k: int, seed: int = 0) -> Tensor:
    mixing = torch.randn(k, k, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return mixing @ mixing.T


def error_without(weight: Tensor, covariance: Tensor, dropped: list[int]) -> float:
    """The least squared error of the outputs when some inputs are missing, solved from scratch."""
    covariance = covariance + RIDGE * covariance.diagonal().mean() * torch.eye(len(covariance))
    kept = [i for i in range(len(covariance)) if i not in dropped]
    solved = torch.linalg.solve(covariance[kept][:, kept], covariance[kept][:, dropped])
    left = covariance[dropped][:, dropped] - covariance[dropped][:, kept] @ solved
    w = weight[:, dropped]
    return float(((w @ left) * w).sum())


def test_each_step_drops_what_brute_force_would_drop() -> None:
    covariance = covariance_of(7)
    weight = torch.randn(3, 7, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    columns = torch.arange(7)[:, None]
    (order,) = eliminate({"a": Eliminated(weight, covariance, RIDGE)}, [{"a": columns}])
    dropped: list[int] = []
    for channel in reversed(order[1:].tolist()):
        left = [i for i in range(7) if i not in dropped]
        errors = {i: error_without(weight, covariance, [*dropped, i]) for i in left}
        assert channel == min(errors, key=errors.__getitem__)
        dropped.append(channel)


def test_blocks_fall_together() -> None:
    covariance = covariance_of(8)
    weight = torch.randn(3, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    blocks = torch.arange(8).reshape(4, 2)
    problem = Eliminated(weight, covariance, RIDGE)
    expected = torch.tensor([error_without(weight, covariance, block.tolist()) for block in blocks])
    torch.testing.assert_close(problem.losses(blocks) / problem.scale, expected.double())
    (order,) = eliminate({"a": problem}, [{"a": blocks}])
    assert int(order[-1]) == int(expected.argmin())
    assert sorted(order.tolist()) == [0, 1, 2, 3]


def test_a_copied_channel_goes_before_one_that_nothing_replaces() -> None:
    covariance = covariance_of(5)
    copied = [0, 1, 2, 3, 4, 2]  # the last channel is the third one again
    covariance = covariance[copied][:, copied]
    weight = torch.ones(2, 6, dtype=torch.float64)
    weight[:, 2] = weight[:, 5] = 10.0  # important together, but either one can stand for both
    (order,) = eliminate(
        {"a": Eliminated(weight, covariance, RIDGE)}, [{"a": torch.arange(6)[:, None]}]
    )
    assert int(order[-1]) in (2, 5)


def test_channels_with_two_readers_count_in_both() -> None:
    """A channel that the first reader ignores stays if the second needs it."""
    identity = torch.eye(3, dtype=torch.float64)
    first = torch.tensor([[0.0, 1.0, 0.5]], dtype=torch.float64)
    second = torch.tensor([[5.0, 0.1, 0.1]], dtype=torch.float64)
    columns = torch.arange(3)[:, None]
    problems = {"a": Eliminated(first, identity, RIDGE), "b": Eliminated(second, identity, RIDGE)}
    (order,) = eliminate(problems, [{"a": columns, "b": columns}])
    assert order.tolist() == [0, 1, 2]


def test_groups_of_one_reader_compete() -> None:
    """Columns that one group makes superfluous in another go first there."""
    covariance = covariance_of(4)
    twice = [0, 1, 2, 3, 1, 0]
    weight = torch.ones(1, 6, dtype=torch.float64)
    groups = [{"a": torch.arange(4)[:, None]}, {"a": torch.arange(4, 6)[:, None]}]
    problem = Eliminated(weight, covariance[twice][:, twice], RIDGE)
    orders = eliminate({"a": problem}, groups)
    assert [sorted(order.tolist()) for order in orders] == [[0, 1, 2, 3], [0, 1]]


@pytest.mark.parametrize("taps", [(), (3, 3)])
def test_a_filters_taps_count_as_outputs(taps: tuple[int, ...]) -> None:
    covariance = covariance_of(4)
    weight = torch.randn(2, 4, *taps, generator=torch.Generator().manual_seed(2)).double()
    flat = weight if not taps else weight.permute(0, 2, 3, 1).reshape(-1, 4)
    losses = Eliminated(weight, covariance, RIDGE).losses(torch.arange(4)[:, None])
    expected = torch.tensor([error_without(flat, covariance, [i]) for i in range(4)]).double()
    torch.testing.assert_close(losses / losses.sum(), expected / expected.sum())


@pytest.mark.parametrize("width", [1, 2])
def test_gathered_updates_give_the_order_of_solving_anew_each_time(width: int) -> None:
    k = 160  # more than are gathered
    covariance = covariance_of(k)
    weight = torch.randn(4, k, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    blocks = torch.arange(k).reshape(-1, width)
    (order,) = eliminate({"a": Eliminated(weight, covariance, RIDGE)}, [{"a": blocks}])
    ridged = covariance + RIDGE * covariance.diagonal().mean() * torch.eye(k)
    for step in (0, 40, len(order) // 2, len(order) - 3):
        gone = order[len(order) - step :]
        left = order[: len(order) - step].sort().values
        dropped, kept = blocks[gone].flatten(), blocks[left].flatten()
        across = torch.linalg.solve(ridged[kept][:, kept], ridged[kept][:, dropped])
        precision = torch.linalg.inv(ridged[kept][:, kept])
        solved = weight[:, kept] + weight[:, dropped] @ across.T
        losses = torch.stack(
            [
                _loss(solved, precision, place)
                for place in torch.arange(len(kept)).reshape(-1, width)
            ]
        )
        assert int(left[losses.argmin()]) == int(order[len(order) - step - 1])


def _loss(weight: Tensor, precision: Tensor, block: Tensor) -> Tensor:
    """The equation of the module's docstring, tr(P_qq^-1 W_q^T W_q)."""
    w = weight[:, block]
    return torch.linalg.solve(precision[block][:, block], w.T @ w).trace()
