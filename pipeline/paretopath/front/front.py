"""The non-dominated paths of a search, and the file that they are kept in."""

import csv
import io
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError

from paretopath.costs import COST_NAMES, COSTS, CostName, cost_named
from paretopath.errors import InvalidValueError, RunDirectoryError, nearest
from paretopath.files import is_altered, sealed, write_atomically
from paretopath.front.dominance import hypervolume, pareto_front
from paretopath.front.dynamic import DynamicPoint
from paretopath.front.points import Point, known_cost

SCHEMA = 2
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
            cost: of the points, of the full path, and those that are worth it only so. None before
            they were searched.

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
        """The points by id, the full path last if it is none of them."""
        return {point.id: point for point in (*self.points, self.full)}

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
        costs = [self.cost_of(point) for point in self.points]
        area = hypervolume([point.accuracy for point in self.points], costs, self.reference)
        return area / self.cost_of(self.full)

    def with_policies(self, policies: Iterable[DynamicPoint]) -> "Front":
        """The front with other policies."""
        found = sorted(policies, key=lambda point: known_cost(point, self.cost))
        return replace(self, policies=tuple(found))

    def updated(self, points: Iterable[Point]) -> "Front":
        """The front with what was learnt since: points replaced by those of the same path.

        Raises:
            InvalidValueError: a point's path is neither on the front nor the full one.
        """
        new = {point.id: point for point in points}
        unknown = set(new) - set(self.everyone)
        if unknown:
            raise InvalidValueError(f"no path of the front has id {sorted(unknown)[0]!r}")
        changed = tuple(new.get(point.id, point) for point in self.points)
        return replace(self, points=changed, full=new.get(self.full.id, self.full))

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
            "points": [to_record(point) for point in self.points],
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
            content = _with_costs_together(content)
            front = TypeAdapter(cls).validate_json(json.dumps(content), strict=True)
            _check_derived(front, content)
        except ValidationError as error:
            raise RunDirectoryError(f"the front {file}: {_first_problem(error)}") from None
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


def to_record(point: Point, mode: str | None = None) -> dict[str, Any]:
    """A point as a record of front.json: its fields, and what readers should not have to derive.

    Args:
        point: of a front.
        mode: the retraining whose accuracy is ``retrained_accuracy``; the point's best if None.
    """
    fields: dict[str, Any] = TypeAdapter(Point).dump_python(point, mode="json")
    retrained = fields.pop("retrained")
    record: dict[str, Any] = {"id": point.id}
    for name, value in fields.items():  # the costs stand side by side with the rest, all of them
        is_costs = name == "costs"
        record |= {c: point.cost(c) for c in COST_NAMES} if is_costs else {name: value}
    mode = mode or point.best_mode
    made = None if mode is None else point.retrained.get(mode)
    record["retrained_mode"] = mode if made else None
    record["retrained_accuracy"] = made.accuracy if made else None
    record["retrained_error"] = made.error if made else None
    return record | {"retrained": retrained}


def _with_costs_together(content: Any) -> Any:
    """A front file's content, its records' costs in a mapping as points have them. A cost that is
    newer than the file is absent.
    """

    def gathered(record: Any, place: str) -> Any:
        if not isinstance(record, dict):
            return record
        for cost in COSTS:
            if cost.required and cost.name not in record:
                raise InvalidValueError(f"{place}.{cost.name} is missing")
        costs = {name: record[name] for name in COST_NAMES if record.get(name) is not None}
        return {key: value for key, value in record.items() if key not in COST_NAMES} | {
            "costs": costs
        }

    content = dict(content)
    if "full" in content:
        content["full"] = gathered(content["full"], "full")
    if isinstance(content.get("points"), list):
        points = enumerate(content["points"])
        content["points"] = [gathered(record, f"points[{i}]") for i, record in points]
    return content


def _check_derived(front: Front, content: Mapping[str, Any]) -> None:
    """Refuses a file whose derived fields contradict the ones that they derive from."""
    records = {"full": content["full"]}
    records |= {f"points[{i}]": record for i, record in enumerate(content["points"])}
    for (place, record), point in zip(records.items(), (front.full, *front.points), strict=True):
        for name in ("id", "retrained_accuracy"):
            if name not in record:
                raise InvalidValueError(f"{place}.{name} is missing")
            if record[name] != getattr(point, name):
                raise InvalidValueError(
                    f"{place}.{name} must be {getattr(point, name)!r}, which follows from other "
                    f"fields, but is {record[name]!r}"
                )


def _first_problem(error: ValidationError) -> str:
    """The first problem that pydantic found, as the end of a sentence."""
    problem = error.errors(include_url=False)[0]
    parts = [part for part in problem["loc"] if part != "costs"]
    place = "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts).lstrip(".")
    message = str(problem["msg"]).removeprefix("Value error, ")
    if problem["type"] == "missing":
        return f"{place} is missing"
    if problem["type"] in ("value_error", "dataclass_type"):
        return f"{place}: {message}" if place else message
    return f"{place}: {message}, but got {problem['input']!r:.60}"
