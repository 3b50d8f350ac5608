"""How a search is to go, and where it stands."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import ExecutionPath
from paretopath.search.record import Evaluated, Record
from paretopath.search.samplers import SAMPLERS


@dataclass(frozen=True)
class SearchSettings:
    """How to search: the recipe's section ``search`` with what its texts mean for one space.

    Attributes:
        trials: how many paths to evaluate, failed ones counted, those of an interrupted search too.
        seed: the same seed gives the same trials, also when killed and resumed, or continued with
            more trials.
        sampler: ``model`` (accuracy model searched with the exact cost), ``nsga2``, ``tpe``,
            ``gp``, ``random``.
        generation: how many paths are proposed together; None lets it grow with what is known.
        cost: the second objective: ``energy_mj``, ``latency_ms``, ``macs`` …
        budgets: upper bounds on costs, by name. Nothing above them is evaluated, but for the full
            path.
        paths: canonical paths to evaluate before any other but the full one.

    Raises:
        InvalidValueError: a number that is not positive, or an unknown sampler.
    """

    trials: int
    seed: int = 0
    sampler: str = "model"
    generation: int | None = None
    cost: str = "energy_mj"
    budgets: Mapping[str, float] = field(default_factory=dict)
    paths: Sequence[ExecutionPath] = ()

    def __post_init__(self) -> None:
        for name, value in (("trials", self.trials), ("generation", self.generation)):
            if value is not None and value < 1:
                raise InvalidValueError(f"{name} must be at least 1, but got {value}")
        if self.seed < 0:
            raise InvalidValueError(f"a seed must not be negative, but got {self.seed}")
        if self.sampler not in SAMPLERS:
            raise InvalidValueError(
                f"there is no sampler {self.sampler!r}; {nearest(self.sampler, SAMPLERS)}"
            )

    @property
    def identity(self) -> dict[str, int | str | None]:
        """What must stay as it is when a search goes on: it decides which trials come."""
        return {"seed": self.seed, "sampler": self.sampler, "generation": self.generation}


@dataclass(frozen=True)
class SearchProgress:
    """Where a search stands.

    Attributes:
        finished: trials that have finished, failed ones included.
        trials: how many are wanted.
        failed: how many of the finished ones failed.
        stopped: how many of them racing stopped.
        latest: those that finished since the last report.
        cost: the name of what is minimised.
        best: the most accurate one within the budgets; None before there is any.
    """

    finished: int
    trials: int
    failed: int
    latest: tuple[Evaluated, ...]
    cost: str
    best: Evaluated | None
    stopped: int = 0

    @classmethod
    def of(cls, record: Record, trials: int, latest: Sequence[int]) -> "SearchProgress":
        """What a record says, with the numbers of the trials that finished last."""
        return cls(
            finished=record.finished,
            trials=trials,
            failed=record.failed,
            latest=record.read(latest),
            cost=record.problem.cost,
            best=record.best(),
            stopped=record.stopped,
        )
