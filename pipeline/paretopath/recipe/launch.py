"""The recipe's section on where jobs run: here, or on a cluster that SLURM manages."""

import re
from collections.abc import Mapping
from typing import Any, Literal, Self

from pydantic import Field, field_validator, model_validator

from paretopath.recipe.section import Number, Section, Texts

# sbatch's options that another field of the section, or the launcher itself, sets
_SET_BY = {
    "partition": "partition",
    "account": "account",
    "nodes": "nodes",
    "gpus": "gpus_per_node",
    "gpus-per-node": "gpus_per_node",
    "gpus-per-task": "gpus_per_node",
    "gres": "gpus_per_node",
    "ntasks": "tasks_per_node",
    "ntasks-per-node": "tasks_per_node",
    "cpus-per-task": "cpus_per_task",
    "mem": "memory_gb",
    "time": "time_minutes",
    "signal": "grace_s",
    "array": None,
    "output": None,
    "error": None,
    "open-mode": None,
    "job-name": None,
    "wrap": None,
}


class Launch(Section):
    """Where jobs run, and what a cluster gives each of them."""

    where: Literal["local", "slurm"] = Field(default="local", description="here, or as jobs")
    partition: str | None = Field(
        default=None, min_length=1, description="SLURM's; null: its default"
    )
    account: str | None = Field(default=None, min_length=1, description="that is charged")
    nodes: int = Field(default=1, ge=1, description="a job")
    gpus_per_node: int = Field(default=0, ge=0, description="0: the job runs on CPUs")
    gpu_type: str | None = Field(
        default=None, pattern=r"^[\w.-]+$", description="as the cluster names it: a100"
    )
    tasks_per_node: int | None = Field(
        default=None, ge=1, description="null: one a GPU, at least one"
    )
    cpus_per_task: int = Field(default=4, ge=1, description="cores of each task")
    memory_gb: Number | None = Field(
        default=None, gt=0, description="GiB a node; null: the partition's default"
    )
    time_minutes: int = Field(
        default=240, ge=1, description="a job's limit; it requeues itself and resumes"
    )
    grace_s: int = Field(
        default=120,
        ge=10,
        description="seconds before that limit at which a job saves its state and requeues itself",
    )
    retries: int = Field(
        default=3,
        ge=0,
        description="how often a job starts again after its processes were killed",
    )
    parallel: int | None = Field(
        default=None, ge=1, description="jobs of an array that run at a time; null: all"
    )
    strategy: Literal["auto", "ddp", "fsdp"] = Field(
        default="auto",
        description="of training: auto is ddp where there are several tasks; fsdp shards the "
        "weights of models that are too large for one GPU",
    )
    modules: Texts = Field(default=(), description="environment modules to load: cuda/12.8")
    setup: Texts = Field(
        default=(), description="shell commands before the job: source env/bin/activate"
    )
    sbatch: dict[str, str | int | bool] = Field(
        default_factory=dict,
        description="more sbatch options by their long names: {qos: high, constraint: a100}",
    )

    @property
    def tasks(self) -> int:
        """Processes of a job on each node."""
        return self.tasks_per_node or max(1, self.gpus_per_node)

    @property
    def world_size(self) -> int:
        """Processes of a job."""
        return self.nodes * self.tasks

    @field_validator("sbatch")
    @classmethod
    def _not_set_elsewhere(cls, options: Mapping[str, Any]) -> Mapping[str, Any]:
        for name in options:
            option = name.replace("_", "-")
            if not re.fullmatch(r"[a-z][a-z-]+", option):
                raise ValueError(
                    f"sbatch options go by their long names without hyphens in front, such as "
                    f"qos, but got {name!r}"
                )
            if option in _SET_BY:
                field = _SET_BY[option]
                set_by = f"the field {field} sets it" if field else "the launcher sets it"
                raise ValueError(f"sbatch must not hold {name!r}: {set_by}")
        return options

    @model_validator(mode="after")
    def _fits_together(self) -> Self:
        if self.gpus_per_node and self.tasks != self.gpus_per_node:
            raise ValueError(
                f"tasks_per_node must be one a GPU, but got {self.tasks_per_node} for "
                f"{self.gpus_per_node} GPUs"
            )
        if self.gpu_type and not self.gpus_per_node:
            raise ValueError("gpu_type needs gpus_per_node, which is 0")
        if self.strategy == "fsdp" and not self.gpus_per_node:
            raise ValueError("strategy fsdp shards weights over GPUs, but gpus_per_node is 0")
        if self.grace_s >= 60 * self.time_minutes:
            raise ValueError(
                f"grace_s must be less than the time limit, but got {self.grace_s} s "
                f"of {60 * self.time_minutes} s"
            )
        return self
