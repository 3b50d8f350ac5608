"""A run as its jobs are given it: a directory, a recipe, a device."""

import json
import shutil
from pathlib import Path
from typing import Self

import torch

from paretopath.devices import find_device, keep_freed_memory
from paretopath.errors import RunDirectoryError
from paretopath.files import write_atomically
from paretopath.recipe import Recipe, load_resolved
from paretopath.run.changes import ingredients, require_same
from paretopath.run.directory import RunDirectory
from paretopath.run.environment import environment
from paretopath.search.storage import has_study


class Run(RunDirectory):
    """One run. What its recipe describes is built by :func:`~paretopath.run.parts.assemble`.

    Args:
        directory: where its files are.
        recipe: resolved; the one that the directory holds.
        device: where its models run; the first GPU if there is one, else the CPU.
    """

    def __init__(
        self, directory: Path | str, recipe: Recipe, *, device: torch.device | str | None = None
    ) -> None:
        super().__init__(directory)
        self.recipe = recipe
        self.device = find_device(None if device is None else str(device))
        keep_freed_memory()

    @classmethod
    def open(cls, directory: Path | str, *, device: torch.device | str | None = None) -> Self:
        """The run of a directory that exists.

        Raises:
            RunDirectoryError: there is none.
        """
        file = RunDirectory(directory).recipe_file
        if not file.is_file():
            raise RunDirectoryError(
                f"{directory} is not a run directory: it holds no {file.name}; "
                f"`paretopath search RECIPE` makes one"
            )
        return cls(directory, load_resolved(file), device=device)

    @classmethod
    def start(
        cls, directory: Path | str, recipe: Recipe, *, device: torch.device | str | None = None
    ) -> Self:
        """A new run, or the one that the directory holds if its recipe asks for the same.

        Raises:
            RunDirectoryError: it holds a run of another recipe.
        """
        run = cls(directory, recipe, device=device)
        run.require_same()
        run._drop_foreign_training()
        run.directory.mkdir(parents=True, exist_ok=True)
        recipe.save(run.recipe_file)
        write_atomically(run.environment_file, json.dumps(environment(run.device), indent=1) + "\n")
        return run

    def require_same(self) -> None:
        """RunDirectoryError if the directory holds what another recipe made.

        A search is of its whole recipe, and base weights are of what makes them; where there is
        neither, nothing is lost by another recipe.
        """
        if not self.recipe_file.is_file():
            return
        old = load_resolved(self.recipe_file)
        if has_study(self.directory) or self.sensitivity_file.is_file():
            require_same(self.recipe, old, self.directory)
        elif self.weights_file.is_file():
            require_same(self.recipe, old, self.directory, of=ingredients)

    def _drop_foreign_training(self) -> None:
        """Removes checkpoints on the way to weights of another recipe."""
        if self.recipe_file.is_file() and self.training_dir.is_dir():
            if ingredients(load_resolved(self.recipe_file)) != ingredients(self.recipe):
                shutil.rmtree(self.training_dir, ignore_errors=True)
