"""What a report needs to know of a search."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from paretopath.costs import CostName, cost_named
from paretopath.errors import InvalidValueError
from paretopath.run import Run


@dataclass(frozen=True)
class PublishedSearch:
    """One search, with its retrainings, as a report shows it.

    Attributes:
        directory: of the run.
        group: of its runs in W&B.
        project, entity: where they are; entity None is the account's default.
        hardware: what its costs are for.
        metric: the accuracy's name.
        cost: what was traded against accuracy.
        settings: what tells it from other searches, for people: hardware, seed, budgets.
        decisions: those in which its front's paths differ.
        retrained: whether there are retrained paths.
        summarized: whether there is a summary of them, or of measured paths.
        sensitivity: whether that was measured.
    """

    directory: Path
    group: str
    project: str
    entity: str | None
    hardware: str
    metric: str
    cost: CostName
    settings: tuple[str, ...]
    decisions: tuple[str, ...]
    retrained: bool
    summarized: bool
    sensitivity: bool


def published_search(run: Run) -> PublishedSearch:
    """What a report needs to know of a run.

    Raises:
        RunDirectoryError: it has no front yet.
    """
    front, recipe = run.front(), run.recipe
    points = front.everyone.values()
    retrained = any(point.retrained for point in points)
    values = {
        name: {point.path.get(name) for point in points} for point in points for name in point.path
    }
    settings = [front.hardware, f"{recipe.search.trials} trials, seed {recipe.search.seed}"]
    for name, budget in recipe.search.limits.items():
        settings.append(f"{cost_named(name).title} up to {budget}")
    return PublishedSearch(
        directory=run.directory,
        group=recipe.tracking.group or run.directory.absolute().name,
        project=recipe.tracking.project,
        entity=recipe.tracking.entity,
        hardware=front.hardware,
        metric=front.metric,
        cost=front.cost,
        settings=tuple(settings),
        decisions=tuple(name for name, found in values.items() if len(found) > 1),
        retrained=retrained,
        summarized=retrained or run.measured_file.is_file(),
        sensitivity=run.sensitivity_file.is_file(),
    )


def require_one_place(searches: Sequence[PublishedSearch]) -> None:
    """Refuses searches that can't stand in one report.

    Raises:
        InvalidValueError: none at all, two of one group, or another project, entity, metric or
            cost.
    """
    if not searches:
        raise InvalidValueError("a report needs at least one run directory")
    groups = [search.group for search in searches]
    if len(set(groups)) < len(groups):
        raise InvalidValueError(
            f"the runs of a report must have distinct groups, but got {', '.join(groups)}; "
            f"name another tracking.group in a recipe"
        )
    for name in ("project", "entity", "metric", "cost"):
        found = {str(getattr(search, name)) for search in searches}
        if len(found) > 1:
            raise InvalidValueError(
                f"the runs of a report must share one {name}, but have {', '.join(sorted(found))}"
            )
