"""What long work tells those who listen: progress displays, trackers."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Epoch:
    """How far a training is.

    Attributes:
        number: epochs finished, from 1.
        of: epochs asked for.
        loss: mean training loss of the epoch.
        metrics: validation accuracy by path id, where it was measured.
    """

    number: int
    of: int
    loss: float
    metrics: Mapping[str, float]


EpochListener = Callable[[Epoch], None]


@dataclass(frozen=True)
class EpochReport:
    """Who hears of each epoch, and what is measured for them.

    Attributes:
        listener: takes the epoch, in the first process.
        validate: gives validation accuracy by path id; called every ``validate_every`` epochs of
            the settings, and at the last.
    """

    listener: EpochListener
    validate: Callable[[], Mapping[str, float]] | None = None
