"""Points as records of ``front.json``: flat, with what readers should not have to derive."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError

from paretopath.costs import COST_NAMES, COSTS
from paretopath.errors import InvalidValueError
from paretopath.front.points import Point

LISTS = ("points", "early_only")
"""The fields of a front that are lists of points."""


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


def with_costs_together(content: Any) -> Any:
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
    for name in LISTS:
        if isinstance(content.get(name), list):
            records = enumerate(content[name])
            content[name] = [gathered(record, f"{name}[{i}]") for i, record in records]
    return content


def check_derived(
    content: Mapping[str, Any], full: Point, lists: Mapping[str, Sequence[Point]]
) -> None:
    """Refuses a file whose derived fields contradict the ones that they derive from.

    Args:
        content: of the file.
        full: what was read of its full path.
        lists: what was read of its :data:`LISTS`, by name.
    """
    pairs = {"full": (content["full"], full)}
    for name, points in lists.items():
        found = zip(content.get(name, []), points, strict=True)
        pairs |= {f"{name}[{i}]": pair for i, pair in enumerate(found)}
    for place, (record, point) in pairs.items():
        for name in ("id", "retrained_accuracy"):
            if name not in record:
                raise InvalidValueError(f"{place}.{name} is missing")
            if record[name] != getattr(point, name):
                raise InvalidValueError(
                    f"{place}.{name} must be {getattr(point, name)!r}, which follows from other "
                    f"fields, but is {record[name]!r}"
                )


def first_problem(error: ValidationError) -> str:
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
