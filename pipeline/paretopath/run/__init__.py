"""A run directory, and the objects that its recipe describes."""

from paretopath.run.directory import default_directory, move_aside
from paretopath.run.environment import environment
from paretopath.run.run import Deployable, Run, read_path, trial_record

__all__ = [
    "Deployable",
    "Run",
    "default_directory",
    "environment",
    "move_aside",
    "read_path",
    "trial_record",
]
