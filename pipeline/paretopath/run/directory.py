"""A run directory: where its files are, and what is read from them.

Deploying rests on it, so nothing of the search is imported before its trials are asked for.
"""

from itertools import count
from pathlib import Path

from paretopath.costs import cost_named
from paretopath.elastic.own import OwnFolder
from paretopath.front import Front, TrialRecord
from paretopath.front.front import FILE
from paretopath.paths import SearchSpace
from paretopath.recipe import Recipe


class RunDirectory:
    """The names of a run's files, and what they hold.

    Args:
        directory: that holds them.
    """

    def __init__(self, directory: Path | str) -> None:
        self.directory = Path(directory)

    @property
    def recipe_file(self) -> Path:
        """The resolved recipe."""
        return self.directory / "recipe.yaml"

    @property
    def environment_file(self) -> Path:
        """Versions, git hash and device of the last start."""
        return self.directory / "environment.json"

    @property
    def weights_file(self) -> Path:
        """The elastic weights that the search evaluates."""
        return self.directory / "weights.safetensors"

    @property
    def training_dir(self) -> Path:
        """Checkpoints of the base model's training, until it ends."""
        return self.directory / "training"

    @property
    def study_file(self) -> Path:
        """Every trial, as Optuna's journal."""
        from paretopath.search.storage import JOURNAL

        return self.directory / JOURNAL

    @property
    def front_file(self) -> Path:
        """The front, with everything measured about it."""
        return self.directory / FILE

    @property
    def report_file(self) -> Path:
        """The report for people."""
        return self.directory / "report.html"

    def retrained_dir(self, mode: str, path_id: str | None = None) -> Path:
        """Where a retraining keeps its files; ``path_id`` for mode ``separate``."""
        folder = self.directory / "retrained" / mode
        return folder / path_id if path_id else folder

    def own(self, mode: str | None = None) -> OwnFolder:
        """What the front's paths have for themselves, a file a path id: batch-norm statistics and
        re-solved weights.

        Args:
            mode: of the retraining that left it; None for what is searched.
        """
        folder = self.retrained_dir(mode) if mode else self.directory
        return OwnFolder(folder / "statistics")

    @property
    def costs_file(self) -> Path:
        """What each form of a unit costs on the recipe's hardware."""
        return self.directory / "costs.npz"

    @property
    def sensitivity_file(self) -> Path:
        """What each decision alone does to accuracy and cost."""
        return self.directory / "sensitivity.json"

    @property
    def pictures_file(self) -> Path:
        """Some images with what the front's paths find in them, where the task can draw that."""
        return self.directory / "pictures.json"

    @property
    def measured_file(self) -> Path:
        """What devices took for its paths."""
        return self.directory / "measured.json"

    @property
    def races_dir(self) -> Path:
        """What later candidates race against: finished paths' accuracies on shares of the images,
        a file each.
        """
        return self.directory / "races"

    def front(self) -> Front:
        """The front as last saved; RunDirectoryError if there is none yet."""
        return Front.load(self.front_file)

    def trials(self, space: SearchSpace) -> list[TrialRecord]:
        """The finished trials of its study of a space, in order."""
        from paretopath.run.trials import finished_trials

        return finished_trials(self.directory, space)


def default_directory(recipe: Recipe) -> Path:
    """Where a recipe's run goes if nobody says otherwise: ``runs/NAME``, budgets in the name."""
    budgets = recipe.search.limits.items()
    parts = [f"{cost_named(name).title}-{text}" for name, text in budgets]
    name = "_".join([recipe.name, *parts])
    return Path("runs") / name.replace("%", "pct").replace(" ", "")


def move_aside(directory: Path) -> Path | None:
    """Renames a run directory to the first free ``NAME.1``, ``NAME.2`` …; None if there was
    none.
    """
    if not directory.exists():
        return None
    target = next(
        candidate
        for number in count(1)
        if not (candidate := directory.with_name(f"{directory.name}.{number}")).exists()
    )
    return directory.rename(target)
