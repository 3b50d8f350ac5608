"""Exits, found by their conditions: those on a path's way, and the fullest path to each.

An exit is a unit whose output is the model's. On which path it lies is never a matter of its place
in the chain: a family of models holds the chains of all its members, each with its own exits.
"""

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from paretopath.elastic.own import PathTensors
from paretopath.elastic.units import Chain, State, Step, Unit
from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import Condition, ExecutionPath, SearchSpace, Value


@dataclass(frozen=True)
class ExitOnTheWay:
    """An exit at which a path can be left.

    Attributes:
        step: the exit, with its choice.
        after: how many steps of the path run before it.
        path: the path that ends there; up to its end it is the same.
    """

    step: Step
    after: int
    path: ExecutionPath


def exits_on_the_way(model: Chain, path: Mapping[str, Value]) -> list[ExitOnTheWay]:
    """The exits that a path passes, first to last, its own end included where that is an exit.

    An exit lies on the way if the path that differs in the exit's decision alone takes the same
    steps up to the exit.
    """
    path = model.space.canonical(path)
    steps = model.steps(path)
    found = []
    for unit in model.chain:
        if unit is steps[-1].unit and unit.is_exit:
            found.append(ExitOnTheWay(steps[-1], len(steps) - 1, path))
        elif unit.is_exit and unit.requires is not None and unit.requires.decision in path:
            found += _passed(model, path, steps, unit, unit.requires)
    return sorted(found, key=lambda exit_: exit_.after)


def _passed(
    model: Chain,
    path: ExecutionPath,
    steps: tuple[Step, ...],
    unit: Unit,
    requires: Condition,
) -> list[ExitOnTheWay]:
    """One exit, if it lies on the way of a path with these steps; else none."""
    for value in reversed(requires.values):
        other = model.space.canonical({**path, requires.decision: value})
        *before, last = model.steps(other)
        same = [(step.unit, step.choice) for step in steps[: len(before)]]
        if last.unit is unit and [(step.unit, step.choice) for step in before] == same:
            return [ExitOnTheWay(last, len(before), other)]
    return []


def steps_with_exits(
    model: Chain,
    path: Mapping[str, Value],
    asked: Collection[str] | None = None,
    *,
    own: PathTensors | None = None,
) -> tuple[Step, ...]:
    """The steps of a path with the exits on its way put in; its own exit is the last.

    Args:
        model: whose steps.
        path: any path of its space.
        asked: names of the exits to put in; all that lie on the way if None.
        own: see :meth:`Chain.steps`.

    Raises:
        InvalidValueError: the path ends at no exit, or one that is asked is not on its way.
    """
    path = model.space.canonical(path)
    exits = exits_on_the_way(model, path)
    if not exits or exits[-1].path != path:
        raise InvalidValueError("leaving early needs a model with exits, but this one has none")
    names = [found.step.unit.name for found in exits]
    for name in asked or ():
        if name not in names:
            raise InvalidValueError(
                f"exits to ask must lie on the way of the path, but {name!r} does not; "
                f"{nearest(name, names)}"
            )
    steps = list(model.steps(path, own))
    for found in reversed(exits[:-1]):
        if asked is None or found.step.unit.name in asked:
            steps.insert(found.after, found.step)
    return tuple(steps)


def outputs_of_exits(steps: Iterable[Step], images: State) -> list[State]:
    """What every exit says of a batch that nobody leaves, in order.

    Args:
        steps: of :func:`steps_with_exits`.
        images: (B, C, Y, X), or what else the steps take.
    """
    state, outputs = images, []
    for step in steps:
        out = step(state)
        if step.unit.is_exit:
            outputs.append(out)
        else:
            state = out
    return outputs


def exit_paths(model: Chain) -> list[ExecutionPath]:
    """The fullest path to each exit of the chain, the full path last; the full path alone where
    there are no exits.
    """
    full = model.space.full
    exits = [unit for unit in model.chain if unit.is_exit]
    paths = dict.fromkeys(_fullest_where(model.space, unit.requires) for unit in exits)
    return [*(path for path in paths if path != full), full]


def _fullest_where(space: SearchSpace, condition: Condition | None) -> ExecutionPath:
    """The fullest path on which a condition holds, and what its decision itself requires."""
    choices: dict[str, Value] = {}
    while condition is not None:
        decision = space[condition.decision]
        choices[decision.name] = max(condition.values, key=decision.index)
        condition = decision.requires
    return space.canonical(choices)
