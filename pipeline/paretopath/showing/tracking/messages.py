"""What a job tells the tracking process: pickles through a pipe."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from paretopath.costs import CostName
from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front, TrialRecord
from paretopath.showing.breakdown import Measured, Row
from paretopath.showing.report import UnitCost
from paretopath.showing.tracking.mode import Mode

RunKind = Literal["search", "retrain", "summary"]


@dataclass(frozen=True)
class Objective:
    """What a search trades against accuracy.

    Attributes:
        cost: its name.
        full_cost: what the full path costs; hypervolumes are measured up to it.
    """

    cost: CostName
    full_cost: float


@dataclass(frozen=True)
class Opening:
    """The first message.

    Attributes:
        run_dir: of the search that all runs belong to; W&B's files go into its folder ``wandb``.
        mode: ``auto``, ``online`` or ``offline``.
        project, entity, group, tags: of W&B; entity None is the account's default.
        init_s: how long a run may take to begin online.
    """

    run_dir: Path
    mode: Mode
    project: str
    entity: str | None
    group: str
    tags: tuple[str, ...]
    init_s: float = 20.0


@dataclass(frozen=True)
class Start:
    """Begins a W&B run, or goes on with the one of that name.

    Attributes:
        run: its name within the run directory, and in W&B.
        kind: W&B's job type.
        config: plain values.
        objective: of a search; None for other kinds.
    """

    run: str
    kind: RunKind
    config: Mapping[str, Any]
    objective: Objective | None


@dataclass(frozen=True)
class Log:
    """A row of a run's history."""

    run: str
    step: int
    values: Mapping[str, float]


@dataclass(frozen=True)
class Trials:
    """Finished trials, in order; ``known``: from before a resumption, logged already."""

    run: str
    records: tuple[TrialRecord, ...]
    known: bool


@dataclass(frozen=True)
class Summarize:
    """Values for a run's summary."""

    run: str
    values: Mapping[str, Any]


@dataclass(frozen=True)
class Show:
    """A front with what belongs to it: tables, pictures and an artifact of some files."""

    run: str
    front: Front
    trials: tuple[TrialRecord, ...]
    unit_costs: Mapping[str, Sequence[UnitCost]]
    kind_costs: Mapping[str, Sequence[Row]]
    sensitivity: Sensitivity | None
    pictures: Mapping[str, Any] | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class ShowOutcome:
    """What came of a front: accuracies before and after retraining, and what was measured."""

    run: str
    front: Front
    measured: Mapping[str, Measured]
    pictures: Mapping[str, Any] | None
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Finish:
    """Ends a run."""

    run: str
    failed: bool


@dataclass(frozen=True)
class Close:
    """The last message, and whether the job failed. Where it is missing, the job died."""

    failed: bool


RunMessage = Start | Log | Trials | Summarize | Show | ShowOutcome | Finish
Message = Opening | RunMessage | Close
