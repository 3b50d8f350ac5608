"""The table of a space's costs: look-ups that equal each path traced and priced alone."""

from collections.abc import Sequence

import numpy as np
import pytest
from torch import nn

from paretopath.cost import CostTable, create
from paretopath.cost.accelerator import AcceleratorModel
from paretopath.cost.model import Costs
from paretopath.costs import COSTS
from paretopath.elastic import Choice, ElasticModel, ElasticSpace, State, Unit
from paretopath.errors import HardwareError
from paretopath.paths import Condition, Decision, ExecutionPath
from paretopath.tracing import UnitTrace, build_on_meta, trace_units

BLOCKS, TOKENS, FEATURES = 12, 60, 8
KEPT = (0.6, 0.7, 0.8, 0.9, 1.0)


class Merging(Unit):
    """A layer over a share of the tokens that reach it; how many do is in the state alone."""

    def __init__(self, name: str) -> None:
        runs = Condition(f"{name}.run", (True,))
        super().__init__(name, decisions=(f"{name}.keep",), requires=runs)
        self.layer = nn.Linear(FEATURES, FEATURES)

    def forward(self, state: State, choice: Choice) -> State:
        kept = max(1, round(state.shape[1] * float(choice[f"{self.name}.keep"])))
        return self.layer(state[:, :kept])

    def extract(self, choice: Choice) -> nn.Module:
        return nn.Linear(FEATURES, FEATURES)


class Head(Unit):
    """Depends on every decision, in more combinations than any array could hold."""

    is_exit = True

    def __init__(self, decisions: Sequence[str]) -> None:
        super().__init__("head", decisions=tuple(decisions))
        self.layer = nn.Linear(FEATURES, 3)

    def forward(self, state: State, choice: Choice) -> State:
        return self.layer(state)

    def extract(self, choice: Choice) -> nn.Module:
        return nn.Linear(FEATURES, 3)


class MergingSpace(ElasticSpace):
    def __init__(self) -> None:
        self.names = [f"blocks.{i}" for i in range(BLOCKS)]
        decisions = []
        for name in self.names:
            runs = Condition(f"{name}.run", (True,))
            decisions += [Decision(f"{name}.run", (False, True))]
            decisions += [Decision(f"{name}.keep", KEPT, runs)]
        super().__init__(decisions, input_shape=(TOKENS, FEATURES))

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        everything = [f"{name}.keep" for name in self.names]
        return [*(Merging(name) for name in self.names), Head(everything)]


def alone(model: ElasticModel, cost_model: AcceleratorModel, path: ExecutionPath) -> list[float]:
    """A path's costs from its own trace."""
    traces = trace_units(model, path)
    costs = cost_model.unit_costs(traces)
    found = []
    for cost in COSTS:
        own = costs[cost.name] if cost.of_unit is None else [cost.of_unit(t) for t in traces]
        found.append(cost.combined([float(value) for value in own]) or 0.0)
    return found


def test_what_earlier_units_did_to_the_state_is_in_the_costs() -> None:
    space, model = MergingSpace(), create("accelerator", preset="magnet-16nm")
    table = CostTable(space, model)
    assert np.prod([len(KEPT) + 1.0] * BLOCKS) > 1e9  # the head's choices, none of them listed
    matrix = space.sample_encoded(np.random.default_rng(0), 25)
    priced, meta = table.encoded(matrix), build_on_meta(space)
    for i, path in enumerate(space.decode(matrix)):
        expected = alone(meta, model, path)
        found = [priced[cost.name][i] for cost in COSTS]
        np.testing.assert_allclose(found, expected, rtol=1e-12)
    again = table.encoded(matrix[::-1])
    np.testing.assert_array_equal(again.energy_mj, priced.energy_mj[::-1])


def test_paths_priced_in_one_call_cost_what_they_cost_in_many() -> None:
    space = MergingSpace()
    matrix = space.sample_encoded(np.random.default_rng(1), 12)
    one, many = (CostTable(space, create("accelerator", preset="magnet-16nm")) for _ in range(2))
    apart = [many.encoded(matrix[i : i + 1]).energy_mj[0] for i in range(len(matrix))]
    np.testing.assert_array_equal(one.encoded(matrix).energy_mj, apart)


def test_forms_that_could_not_be_priced_are_not_taken_for_known() -> None:
    space = MergingSpace()
    inner = create("accelerator", preset="magnet-16nm")

    class Failing:
        hardware = "box"
        fails = True

        def unit_costs(self, traces: Sequence[UnitTrace]) -> Costs:
            if self.fails:
                raise HardwareError("no more")
            return inner.unit_costs(traces)

    model = Failing()
    table = CostTable(space, model)
    with pytest.raises(HardwareError, match="no more"):
        table([space.full])
    model.fails = False
    assert table([space.full]).energy_mj == CostTable(space, inner)([space.full]).energy_mj
