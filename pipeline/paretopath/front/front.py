"""The non-dominated paths of a search, and the file that they are kept in."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from paretopath.costs import CostName, cost_named
from paretopath.errors import InvalidValueError, RunDirectoryError, nearest
from paretopath.files import is_altered, sealed, write_atomically
from paretopath.front.dominance import hypervolume, pareto_front
from paretopath.front.dynamic import DynamicPoint
from paretopath.front.points import Point, known_cost
from paretopath.front.records import (
    LISTS,
    check_derived,
    first_problem,
    to_record,
    with_costs_together,
)

SCHEMA = 3
"""The version of front.json that this code writes; it reads those of before too."""

FILE = "front.json"


@dataclass(frozen=True)
class Front:
    """The non-dominated paths of a search. Make one with :meth:`of`.

    Attributes:
        points: by rising cost (so by rising accuracy); none dominates another.
        full: the baseline: the full path, on the front or not.
        recipe: the resolved recipe, as plain data.
        hardware: what the costs are for.
        metric: the accuracy's name (``top-1``, ``mIoU`` …).
        cost: the cost that was traded against accuracy.
        accuracy_source: where the search's accuracies come from: ``measured on validation``,
            ``predicted by …``.
        policies: dynamic points: paths with policies by which images leave them early, by rising
            cost: of any of these paths. None before they were searched.
        early_only: paths that are worth it only with a policy, where a search chose both together;
            measured as if nobody left them early.

    Raises:
        InvalidValueError: the points are not a front in that order, or a cost is unknown, or none.
    """

    points: tuple[Point, ...]
    full: Point
    recipe: Mapping[str, Any] = field(hash=False)
    hardware: str
    metric: str
    cost: CostName = "energy_mj"
    accuracy_source: str = "measured on validation"
    policies: tuple[DynamicPoint, ...] = ()
    early_only: tuple[Point, ...] = ()

    def __post_init__(self) -> None:
        cost_named(self.cost)
        costs = [self.cost_of(point) for point in self.points]
        mask = pareto_front([point.accuracy for point in self.points], costs)
        if costs != sorted(costs) or not mask.all():
            raise InvalidValueError(
                f"the points of a front must rise in {self.cost} and none may dominate another"
            )
        if self.cost_of(self.full) <= 0:
            raise InvalidValueError(
                f"{self.cost} of the full path must be above 0, but got {self.cost_of(self.full)}"
            )

    @classmethod
    def of(
        cls,
        candidates: Iterable[Point],
        *,
        full: Point,
        recipe: Mapping[str, Any],
        hardware: str,
        metric: str,
        cost: CostName = "energy_mj",
        accuracy_source: str = "measured on validation",
    ) -> "Front":
        """The front of any set of points; the arguments are described at the attributes.

        Of points equal in accuracy and cost, the one found first stays.
        """
        found = sorted(candidates, key=lambda point: point.number)
        costs = [known_cost(point, cost) for point in found]
        mask = pareto_front([point.accuracy for point in found], costs)
        kept = [point for point, stays in zip(found, mask, strict=True) if stays]
        kept.sort(key=lambda point: known_cost(point, cost))
        return cls(tuple(kept), full, recipe, hardware, metric, cost, accuracy_source)

    def __getitem__(self, identity: str) -> Point:
        """The point (or full path) with an id, or with the one id that starts so.

        Raises:
            InvalidValueError: no path has that id, or several start so.
        """
        matches = [name for name in self.everyone if identity and name.startswith(identity)]
        if len(matches) == 1:
            return self.everyone[matches[0]]
        problem = f"{len(matches)} paths have an id that starts" if matches else "no path has id"
        raise InvalidValueError(f"{problem} {identity!r}; {nearest(identity, self.everyone)}")

    @property
    def everyone(self) -> dict[str, Point]:
        """The points by id, then those that are worth it only with a policy, and the full path."""
        return {point.id: point for point in (*self.points, *self.early_only, self.full)}

    def cost_of(self, point: Point) -> float:
        """What a point costs, in the unit of the front's cost."""
        return known_cost(point, self.cost)

    def saved(self, point: Point) -> float:
        """The share of the full path's cost that a point saves; negative if it costs more."""
        return 1 - self.cost_of(point) / self.cost_of(self.full)

    @property
    def reference(self) -> tuple[float, float]:
        """Where hypervolumes are measured from: no accuracy, at the full path's cost."""
        return 0.0, self.cost_of(self.full)

    @property
    def hypervolume(self) -> float:
        """The dominated area as a share of the rectangle that :attr:`reference` spans, in [0, 1].

        It is the mean, over all budgets from zero to the full path's cost, of the best accuracy
        that fits the budget.
        """
        return self._share([(point.accuracy, self.cost_of(point)) for point in self.points])

    @property
    def hypervolume_with_policies(self) -> float:
        """The same of the points and the policies together, by validation and expected cost."""
        dynamic = [(p.validation.accuracy, known_cost(p, self.cost)) for p in self.policies]
        return self._share([(p.accuracy, self.cost_of(p)) for p in self.points] + dynamic)

    def _share(self, found: Sequence[tuple[float, float]]) -> float:
        """The hypervolume of (accuracy, cost)."""
        accuracies, costs = [a for a, _ in found], [c for _, c in found]
        return hypervolume(accuracies, costs, self.reference) / self.cost_of(self.full)

    def with_policies(self, policies: Iterable[DynamicPoint]) -> "Front":
        """The front with other policies."""
        found = sorted(policies, key=lambda point: known_cost(point, self.cost))
        return replace(self, policies=tuple(found))

    def with_early_only(self, points: Iterable[Point]) -> "Front":
        """The front with paths that are worth it only with a policy; those that are points of it
        are not.
        """
        there = {point.id for point in (*self.points, self.full)}
        return replace(self, early_only=tuple(p for p in points if p.id not in there))

    def updated(self, points: Iterable[Point]) -> "Front":
        """The front with what was learnt since: points replaced by those of the same path.

        Raises:
            InvalidValueError: a point's path is none of the front's.
        """
        new = {point.id: point for point in points}
        unknown = set(new) - set(self.everyone)
        if unknown:
            raise InvalidValueError(f"no path of the front has id {sorted(unknown)[0]!r}")

        def changed(before: Iterable[Point]) -> tuple[Point, ...]:
            return tuple(new.get(point.id, point) for point in before)

        return replace(
            self,
            points=changed(self.points),
            early_only=changed(self.early_only),
            full=new.get(self.full.id, self.full),
        )

    def save(self, file: str | os.PathLike[str]) -> None:
        """Writes the front as JSON, atomically; :meth:`load` reads it back."""
        content = {
            "schema": SCHEMA,
            "recipe": self.recipe,
            "hardware": self.hardware,
            "metric": self.metric,
            "cost": self.cost,
            "accuracy_source": self.accuracy_source,
            "hypervolume": self.hypervolume,
            "full": to_record(self.full),
            **{name: [to_record(point) for point in getattr(self, name)] for name in LISTS},
            "policies": TypeAdapter(tuple[DynamicPoint, ...]).dump_python(self.policies),
        }
        text = json.dumps(sealed(content), indent=1, ensure_ascii=False, allow_nan=False)
        write_atomically(file, text + "\n")

    def save_csv(self, file: str | os.PathLike[str], points: Iterable[Point]) -> None:
        """Writes points as a table, atomically: what :func:`to_record` gives, and each decision."""
        records = [to_record(point) for point in points]
        decisions = list(dict.fromkeys(name for record in records for name in record["path"]))
        text = io.StringIO()
        plain = [
            name for name in (records[0] if records else {}) if name not in ("path", "retrained")
        ]
        writer = csv.writer(text)
        writer.writerow([*plain, *decisions])
        for record in records:
            values = [record[name] for name in plain] + [record["path"].get(d) for d in decisions]
            writer.writerow(["" if value is None else value for value in values])
        write_atomically(file, text.getvalue())

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> "Front":
        """Reads a front's file.

        Raises:
            RunDirectoryError: the file is absent, is not JSON, has another schema, or a field is
                missing or wrong.
        """
        try:
            content = json.loads(Path(file).read_text(encoding="utf-8"))
        except OSError as error:
            raise RunDirectoryError(f"can't read the front {file}: {error.strerror}") from None
        except ValueError as error:
            raise RunDirectoryError(f"the front {file} is not valid JSON: {error}") from None
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema not in range(1, SCHEMA + 1):
            raise RunDirectoryError(
                f"the front {file} must have schema 1 to {SCHEMA}, but has {schema}: it was "
                f"written by another version of paretopath"
            )
        try:
            altered = is_altered(content)
            content = with_costs_together(content)
            front = TypeAdapter(cls).validate_json(json.dumps(content), strict=True)
            check_derived(content, front.full, {name: getattr(front, name) for name in LISTS})
        except ValidationError as error:
            raise RunDirectoryError(f"the front {file}: {first_problem(error)}") from None
        except InvalidValueError as error:
            raise RunDirectoryError(f"the front {file}: {error}") from None
        if altered:
            raise RunDirectoryError(
                f"the front {file} is refused: it was altered, its SHA-256 is not the one in it"
            )
        return front


def load_front(run_dir: str | os.PathLike[str]) -> Front:
    """Reads the front of a run directory, or of a ``front.json`` itself; see :meth:`Front.load`."""
    place = Path(run_dir)
    return Front.load(place / FILE if place.is_dir() else place)
