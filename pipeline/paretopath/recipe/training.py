"""The sections of a recipe on training: of the base model, of its exits, of selected paths."""

from typing import Literal, Self

from pydantic import Field, field_validator, model_validator

from paretopath.recipe.data import Transforms
from paretopath.recipe.section import Number, Section, Share
from paretopath.recipe.selection import parse_selection


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
    exit_weight: Share = Field(
        default=0.0,
        description="how much the loss behind each exit that a path passes counts, to 1 of the "
        "path's own (deep supervision), so that images can leave there; mode `separate` does not "
        "keep these exits; 0: they don't learn, except in mode `shared` where policies were "
        "searched along with paths (exits.search), which takes 1",
    )
    images: int = Field(
        default=2048,
        ge=2,
        description="training images on which mode `closed_form` re-solves, as many as there are "
        "and as fit into calibration.repair_mb at most",
    )
    transforms: Transforms | None = Field(
        default=None,
        description="of the images that paths are retrained on; null: data.transforms.train",
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
