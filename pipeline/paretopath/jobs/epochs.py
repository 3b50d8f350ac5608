"""What all trainings share: reports of their epochs, and scores that must be finite."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from paretopath.elastic import ElasticModel
from paretopath.paths import ExecutionPath
from paretopath.run import Scoring
from paretopath.tasks.task import Score
from paretopath.training.epoch import EpochListener

if TYPE_CHECKING:
    from paretopath.data import SplitName
    from paretopath.training.trainer import EpochReport

SCORED: tuple["SplitName", "SplitName"] = ("validation", "test")


def report_epochs(
    scoring: Scoring,
    model: ElasticModel,
    paths: Sequence[ExecutionPath],
    on_epoch: EpochListener | None,
    *,
    shared: bool = False,
) -> "EpochReport | None":
    """A callback that measures paths on validation and tells the listener; None without one.

    ``shared``: whether training mixes the batch-norm statistics of several paths.
    """
    if on_epoch is None:
        return None
    from paretopath.training.trainer import EpochReport

    def validate() -> Mapping[str, float]:
        scores = scoring.evaluator(model, "validation", shared=shared)(paths)
        found = zip(paths, scores, strict=True)
        return {path.id: score.value for path, score in found if isinstance(score, Score)}

    return EpochReport(on_epoch, validate=validate)


def finite(score: Score | Exception) -> Score:
    """A score; raises the error that stands in its place."""
    if isinstance(score, Score):
        return score
    raise score
