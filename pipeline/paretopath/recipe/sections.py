"""The sections of a recipe on the space, the hardware, where accuracy comes from, and tracking."""

from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, Field, field_validator, model_validator

from paretopath.devices import check_device
from paretopath.recipe.presets import require_preset
from paretopath.recipe.section import LocalFile, Number, Section, Texts, is_url

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

    @field_validator("preset")
    @classmethod
    def _a_preset(cls, value: str | None) -> str | None:
        return None if value is None else require_preset(value)

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
        description="of forward passes that measure; auto: bfloat16 autocast where the device "
        "computes in it (CUDA, CPUs with AMX), float32 elsewhere",
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
