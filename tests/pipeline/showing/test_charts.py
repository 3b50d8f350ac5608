"""What W&B gets of the paths that images leave early."""

from paretopath.showing.tracking.charts import policy_rows
from paretopath.showing.tracking.figures import outcome_figure
from tests.pipeline.search.example_search import example_run, with_policies


def test_policies_are_a_table_with_a_share_for_each_exit_and_dots_of_the_outcome() -> None:
    front = with_policies(example_run()).front
    columns, rows = policy_rows(front)
    early, whole = (dict(zip(columns, row, strict=True)) for row in rows)
    shares = [early[f"leave at exits.{e}"] for e in (1, 2, 4)]
    assert shares == [0.7, 0.3, 0.0] and whole["leave at exits.1"] is None
    assert (early["loss"], early["promised_loss"], early["test_accuracy"]) == (0.004, 0.007, 0.95)
    assert early["energy_mj"] == front.policies[0].cost("energy_mj")
    [dots] = [trace for trace in outcome_figure(front, {}).data if trace.name == "leaving early"]
    assert list(dots.y) == [0.95, 0.954]
    assert "exits.1: 70.0 % leave" in dots.text[0]
    assert "leaving early" not in {t.name for t in outcome_figure(example_run().front, {}).data}
