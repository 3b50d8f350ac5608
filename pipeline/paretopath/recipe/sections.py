"""The sections of a recipe but for its data and its task."""

from itertools import pairwise
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BeforeValidator, Field, field_validator, model_validator

from paretopath.costs import COST_NAMES, CostName, cost_named
from paretopath.devices import check_device
from paretopath.errors import InvalidValueError
from paretopath.quantities import Unit
from paretopath.recipe.budget import parse_budget
from paretopath.recipe.section import (
    LocalFile,
    Number,
    Section,
    Share,
    Texts,
    as_tuple,
    is_url,
)
from paretopath.recipe.selection import parse_selection
from paretopath.recipe.storage_url import check_url

DEFAULT_PRESET = "magnet-16nm"


DecisionValue = bool | int | float | str
Values = Annotated[
    tuple[DecisionValue, ...],
    Field(min_length=1),
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list | tuple) else (value,)),
]


class Space(Section):
    """The family of paths that is searched."""

    name: str = Field(
        min_length=1, description="a registered family (vit, ofa_resnet50, …) or module:Class"
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="keyword arguments of the family, checked by the family itself",
    )
    restrict: dict[str, Values] = Field(
        default_factory=dict,
        description="decision, or a pattern such as stages.*: the values that it may take, or one "
        "that settles it; full and smallest stand for the ends of each",
    )


class Hardware(Section):
    """What prices a path."""

    model: Literal["accelerator", "mapper", "device"] = Field(
        default="accelerator",
        description="analytic accelerator, ZigZag's mapper, or measured on a device",
    )
    preset: str | None = Field(
        default=None, min_length=1, description=f"built-in accelerator; {DEFAULT_PRESET} by default"
    )
    hardware: LocalFile | None = Field(
        default=None, description="accelerator YAML in place of a preset"
    )
    mapping: LocalFile | None = Field(default=None, description="mapping YAML that belongs to it")
    device: str | None = Field(
        default=None, min_length=1, description="for model device: cpu, cuda, cuda:1 …"
    )
    batch_size: int | None = Field(
        default=None, ge=1, description="for model device: images a run; null: 1"
    )
    threads: int | None = Field(
        default=None, ge=1, description="for model device: of a CPU; null: torch's own number"
    )
    precision: Literal["float32", "bfloat16", "float16"] | None = Field(
        default=None, description="for model device: what autocast computes in; null: float32"
    )
    channels_last: bool | None = Field(
        default=None, description="for model device: memory format; null: false"
    )

    @property
    def device_options(self) -> dict[str, Any]:
        """What is said about a device, as arguments of its cost model."""
        names = ("device", "batch_size", "threads", "precision", "channels_last")
        return {name: getattr(self, name) for name in names if getattr(self, name) is not None}

    @field_validator("device")
    @classmethod
    def _a_device(cls, value: str | None) -> str | None:
        return None if value is None else check_device(value)

    @model_validator(mode="before")
    @classmethod
    def _default_preset(cls, values: Any) -> Any:
        if isinstance(values, dict) and values.get("model", "accelerator") != "device":
            if values.get("hardware") is None and values.get("preset") is None:
                return {**values, "preset": DEFAULT_PRESET}
        return values

    @model_validator(mode="after")
    def _one_description(self) -> Self:
        if self.model == "device":
            if self.preset or self.hardware or self.mapping:
                raise ValueError(
                    "model device is measured: it takes no preset, hardware or mapping"
                )
            return self
        if self.device_options:
            given = ", ".join(self.device_options)
            raise ValueError(f"{given}: only for model device, but model is {self.model}")
        if self.preset and self.hardware:
            raise ValueError("preset and hardware exclude each other")
        if self.mapping and not self.hardware:
            raise ValueError("mapping belongs to a hardware file, but none is given")
        return self


class Accuracy(Section):
    """Where a path's accuracy comes from."""

    source: Literal["data", "predictor"] = Field(
        default="data", description="measured on data, or predicted"
    )
    predictor: LocalFile | None = Field(
        default=None, description="file or URL of the predictor's weights"
    )
    sha256: str | None = Field(
        default=None,
        pattern=r"^[0-9a-f]{64}$",
        description="of that file, 64 hexadecimal digits; required for a URL",
    )
    precision: Literal["float32", "bfloat16", "auto"] = Field(
        default="float32",
        description="of forward passes that measure; auto: bfloat16 autocast on CUDA, float32 "
        "elsewhere",
    )
    feature_mb: Number = Field(
        default=1024.0,
        ge=0,
        description="MiB that the outputs of what no decision changes may take, to be computed "
        "once a search; and those of what is frozen, once a training of what is new",
    )

    @model_validator(mode="after")
    def _predictor_is_known(self) -> Self:
        if (self.source == "predictor") != (self.predictor is not None):
            raise ValueError("source predictor and predictor (a file or URL) belong together")
        if self.predictor is not None and is_url(self.predictor) and self.sha256 is None:
            raise ValueError("a predictor from a URL needs its sha256")
        return self


class TrainSettings(Section):
    """How weights are trained: the base model, or selected paths."""

    epochs: int = Field(default=60, ge=1, description="passes over the training split")
    lr: Number = Field(
        default=1e-3,
        gt=0,
        description="peak learning rate of AdamW; falls to 0 by a cosine, step by step",
    )
    warmup_epochs: Number = Field(
        default=5.0, ge=0, description="epochs of linear rise from 0; at most `epochs`"
    )
    weight_decay: Number = Field(
        default=0.05, ge=0, description="decoupled, not on biases and norms"
    )
    gradient_clip: Number | None = Field(
        default=1.0, gt=0, description="largest norm of the gradient; null: no limit"
    )
    label_smoothing: Number = Field(
        default=0.0, ge=0, lt=1, description="Szegedy et al., arXiv 1512.00567, section 7"
    )
    distillation_weight: Share = Field(
        default=0.5,
        description="share of the teacher's term in the loss of a path that has a teacher",
    )
    distillation_temperature: Number = Field(
        default=2.0, gt=0, description="of the teacher's and student's softmax"
    )
    paths_per_step: int = Field(
        default=2,
        ge=0,
        description="random paths a step beside the full and the smallest (sandwich rule)",
    )
    precision: Literal["32-true", "bf16-mixed", "16-mixed"] = Field(
        default="32-true", description="Lightning's names"
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="of weights, order of images and sampled paths"
    )
    checkpoint_every: int = Field(
        default=1, ge=1, description="epochs between checkpoints from which a job goes on"
    )
    validate_every: int = Field(
        default=10, ge=1, description="epochs between validations that are shown; the last is one"
    )

    @model_validator(mode="after")
    def _warmup_fits(self) -> Self:
        if self.warmup_epochs > self.epochs:
            raise ValueError(
                f"warmup_epochs must be at most epochs, "
                f"but got {self.warmup_epochs:g} of {self.epochs}"
            )
        return self


class Train(TrainSettings):
    """How the base model is trained before the search."""

    parameters: Literal["new", "all", "none"] = Field(
        default="new",
        description="which are trained where weights are given: new: those that the weights don't "
        "bring, such as a classifier for other classes and exits, on the frozen rest; all; or "
        "none, and weights that lack some are refused",
    )
    self_distillation: bool = Field(
        default=False,
        description="whether exits learn from the last one's output too, by distillation_weight; "
        "false: from the labels alone",
    )


class Exits(Section):
    """What exits before the last are, where the weights that are given have none; and whether
    policies are searched along with paths.
    """

    weights: Literal["same", "fine_tune", "scratch"] = Field(
        default="fine_tune",
        description="what exits that copy the last classifier begin with: same: the copies, which "
        "stay as they are; fine_tune: the copies, which are trained; scratch: random weights, "
        "which are trained",
    )
    fit: Literal["gradient", "closed_form"] = Field(
        default="gradient",
        description="how exits are trained on the frozen rest: by gradient, as train says, or each "
        "classifier by one least-squares solve, for heads that are a norm and a linear layer",
    )
    search: bool = Field(
        default=False,
        description="whether a search chooses with each path what share of the images that come to "
        "an exit leaves there, so that it goes by expected costs; false: policies are searched "
        "afterwards, by `paretopath exits`",
    )


class RetrainSettings(TrainSettings):
    """How selected paths are retrained."""

    epochs: int = Field(default=20, ge=1, description="passes over the training split")
    warmup_epochs: Number = Field(
        default=1.0, ge=0, description="epochs of linear rise from 0; at most `epochs`"
    )
    lr: Number = Field(default=3e-4, gt=0, description="peak learning rate")
    mode: Literal["shared", "separate", "closed_form"] = Field(
        default="shared",
        description="all paths in one elastic model, one plain model a path, or each path "
        "re-solved in closed form, which trains nothing",
    )
    start: Literal["repaired", "compensated"] = Field(
        default="repaired",
        description="what mode `separate` trains on from: each path as its search scored it, or "
        "its slice of the calibrated weights; `shared` has one set of weights, the latter",
    )
    images: int = Field(
        default=2048,
        ge=2,
        description="training images on which mode `closed_form` re-solves, as many as there are "
        "at most; they run as one batch",
    )
    select: str = Field(
        default="count=4",
        min_length=1,
        description="which paths of the front: knee, budget=70%, count=4",
    )

    @field_validator("select")
    @classmethod
    def _a_selection(cls, value: str) -> str:
        parse_selection(value)
        return value


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


class Tracking(Section):
    """Weights & Biases."""

    mode: Literal["auto", "online", "offline", "disabled"] = Field(
        default="auto", description="auto: online if a key is configured, else offline"
    )
    project: str = Field(default="paretopath", min_length=1, description="W&B's project")
    entity: str | None = Field(
        default=None, min_length=1, description="team or user; null: the account's default"
    )
    group: str | None = Field(
        default=None, min_length=1, description="null: the run directory's name"
    )
    tags: Texts = Field(default=(), description="of every run")

    @field_validator("mode", mode="before")
    @classmethod
    def _off_is_a_word(cls, value: Any) -> Any:
        # YAML 1.1 reads a bare `off` as false
        return "disabled" if value is False else value
