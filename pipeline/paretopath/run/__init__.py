"""A run directory, and the objects that its recipe describes."""

from paretopath.run.deployable import Deployable, open_deployable
from paretopath.run.directory import RunDirectory, default_directory, move_aside, trial_record
from paretopath.run.environment import environment
from paretopath.run.parts import (
    Parts,
    accuracy_source,
    assemble,
    build_space,
    build_table,
    keep_table,
    load_model,
    open_images,
    read_path,
)
from paretopath.run.run import Run
from paretopath.run.scoring import Scoring

__all__ = [
    "Deployable",
    "Parts",
    "Run",
    "RunDirectory",
    "Scoring",
    "accuracy_source",
    "assemble",
    "build_space",
    "build_table",
    "default_directory",
    "environment",
    "keep_table",
    "load_model",
    "move_aside",
    "open_deployable",
    "open_images",
    "read_path",
    "trial_record",
]
