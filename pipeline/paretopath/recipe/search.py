"""The section of a recipe on its search: what is tried, within which budgets, by whom."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from paretopath.costs import COST_NAMES, CostName, cost_named
from paretopath.errors import InvalidValueError
from paretopath.quantities import Unit
from paretopath.recipe.budget import parse_budget
from paretopath.recipe.section import LocalFile, Number, Section, Share, as_tuple
from paretopath.recipe.storage_url import check_url


def _known_cost(name: str) -> str:
    return cost_named(name).name


CostField = Annotated[str, AfterValidator(_known_cost)]


def _budget(unit: Unit) -> BeforeValidator:
    def check(value: Any) -> Any:
        if value is None:
            return None
        parse_budget(str(value), unit, 1.0)
        return str(value)

    return BeforeValidator(check)


class Racing(Section):
    """When candidates of a search stop early."""

    shares: Annotated[tuple[Share, ...], Field(min_length=1), BeforeValidator(as_tuple)] = Field(
        default=(0.125, 0.25, 0.5),
        description="of the validation images, after which candidates are compared; rising",
    )
    confidence: Number = Field(
        default=0.99,
        gt=0.5,
        lt=1,
        description="with which a path of no more cost must be ahead to stop a candidate",
    )

    @model_validator(mode="after")
    def _shares_rise(self) -> Self:
        inside = all(0 < share < 1 for share in self.shares)
        if not inside or any(a >= b for a, b in pairwise(self.shares)):
            raise ValueError("shares must rise and lie between 0 and 1")
        return self


class Search(Section):
    """The study."""

    trials: int = Field(default=200, ge=1, le=100_000, description="paths whose accuracy is bought")
    paths: Annotated[tuple[LocalFile | dict[str, Any], ...], BeforeValidator(as_tuple)] = Field(
        default=(),
        description="paths to evaluate before any other, those over a budget left out: each an "
        "object of decisions, or a JSON file of one (a published configuration, if the family "
        "knows the format)",
    )
    seed: int = Field(default=0, ge=0, lt=2**32, description="of the sampler")
    sampler: Literal["model", "nsga2", "tpe", "gp", "random"] = Field(
        default="model", description="the accuracy model, or one of Optuna's samplers"
    )
    generation: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="paths that are proposed and scored together; null: more as more is known",
    )
    cost: CostField = Field(
        default="energy_mj", description=f"what is minimised: {', '.join(COST_NAMES)}"
    )
    energy_budget: Annotated[str | None, _budget("mJ")] = Field(
        default=None, description="no path over it: share of the full path (70%) or amount (12.5mJ)"
    )
    latency_budget: Annotated[str | None, _budget("ms")] = Field(
        default=None, description="no path over it: share of the full path (70%) or amount (8ms)"
    )
    budgets: dict[CostField, str] = Field(
        default={},
        description="no path over them: any costs by name (activation_bytes: 256kB, params: 70%)",
    )
    start: Literal["spread", "sensitivity"] = Field(
        default="spread",
        description="sensitivity: try every decision alone first, and begin with a ladder of those "
        "that lose least for what they save",
    )
    racing: Racing | None = Field(
        default=Racing(),
        description="stop candidates that a path of no more cost clearly beats; null: score each "
        "on all images",
    )
    workers: int = Field(
        default=1,
        ge=1,
        le=10_000,
        description="processes that share the search; 1: none but this one",
    )
    storage: str | None = Field(
        default=None,
        min_length=1,
        description="URL of a database for the study (postgresql, sqlite, mysql, grpc); null: a "
        "journal in the run directory",
    )
    lease_seconds: Number = Field(
        default=60.0, gt=0, description="a worker that is silent for so long is taken for dead"
    )

    @field_validator("budgets", mode="before")
    @classmethod
    def _amounts(cls, value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        for name, text in value.items():
            unit = cost_named(str(name)).unit
            try:
                parse_budget(str(text), unit, 1.0)
            except InvalidValueError as error:
                raise ValueError(f"of {name}, {error}") from None
        return {name: str(text) for name, text in value.items()}

    @model_validator(mode="after")
    def _each_limited_once(self) -> Self:
        for name, budget in (
            ("energy_mj", self.energy_budget),
            ("latency_ms", self.latency_budget),
        ):
            if budget is not None and name in self.budgets:
                raise ValueError(f"{name} must have one budget, but has one in budgets too")
        return self

    @property
    def limits(self) -> dict[CostName, str]:
        """All budgets, as they are written, by the cost that they limit."""
        own = {"energy_mj": self.energy_budget, "latency_ms": self.latency_budget}
        return {name: text for name, text in own.items() if text is not None} | self.budgets

    @field_validator("storage")
    @classmethod
    def _a_url_without_secrets(cls, value: str | None) -> str | None:
        if value is not None and urlsplit(value).password:
            raise ValueError(
                "a storage must not hold a password, because recipes are kept and shared: "
                "PostgreSQL takes it from ~/.pgpass or the variable PGPASSWORD"
            )
        if value is not None:
            check_url(value)
        return value
