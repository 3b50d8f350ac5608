"""Several models of one family in one search: a path names the model that it prunes.

"Switch to a smaller pretrained model" then stands on the same front as "prune this one".
"""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from paretopath.elastic import (
    ChannelGroup,
    Choice,
    ElasticModel,
    ElasticSpace,
    State,
    Unit,
)
from paretopath.elastic.options import checked
from paretopath.elastic.own import PathTensors
from paretopath.elastic.registry import create_space
from paretopath.errors import InvalidValueError, nearest
from paretopath.paths import Condition, Decision, ExecutionPath, Value
from paretopath.tracing import build_on_meta, total_macs, trace_units

MODEL = "model"
"""The decision that names the model."""


class FamilySpace(ElasticSpace):
    """The paths of several models.

    The decision ``model`` names one of them, from the cheapest full path to the dearest. The
    decisions and units of a model M are its own under the prefix ``M.``; they matter, and run,
    where ``model`` is M.

    Args:
        members: for each model, by its name: ``space``, a registered family or ``module:Class``,
            and ``options`` for it. All must take the same images and tell the same classes apart.

    Raises:
        InvalidValueError: no members, a name with a dot, an entry that is not such a mapping, or
            members that take different images or know different classes.
    """

    @checked
    def __init__(self, *, members: Mapping[str, Any]) -> None:
        if not members:
            raise InvalidValueError("members must have at least one entry, but got none")
        spaces = {name: _member(name, entry) for name, entry in members.items()}
        costs = {name: _full_macs(space) for name, space in spaces.items()}
        self.members = dict(sorted(spaces.items(), key=lambda item: costs[item[0]]))
        first, *others = self.members.values()
        for attribute in ("input_shape", "num_classes"):
            found = {name: getattr(s, attribute, None) for name, s in self.members.items()}
            if len(set(found.values())) > 1:
                raise InvalidValueError(
                    f"the members of a family must have one {attribute}, but got {found}"
                )
        decisions = [Decision(MODEL, tuple(self.members))]
        for name, space in self.members.items():
            decisions += [_prefixed(name, decision) for decision in space.decisions]
        super().__init__(decisions, input_shape=first.input_shape)
        self.num_classes = getattr(first, "num_classes", None)
        self.batch_norm_per_path = any(s.batch_norm_per_path for s in (first, *others))
        self.left = {
            f"{model}.{name}": why
            for model, space in self.members.items()
            for name, why in space.left.items()
        }

    def units(self, checkpoint: str | None = None) -> list[Unit]:
        """See :meth:`ElasticSpace.units`; ``{model}`` in ``checkpoint`` stands for each name."""
        if checkpoint is not None and f"{{{MODEL}}}" not in checkpoint:
            raise InvalidValueError(
                f"weights of a family are one for each model by its name, or hold {{{MODEL}}} in "
                f"its place, but got {checkpoint!r}"
            )
        return self._units({} if checkpoint is None else self._filled(checkpoint))

    def build(self, checkpoint: str | Mapping[str, str] | None = None) -> ElasticModel:
        """See :meth:`ElasticSpace.build`."""
        if checkpoint is None or isinstance(checkpoint, str):
            return super().build(checkpoint)
        for name in checkpoint:
            if name not in self.members:
                raise InvalidValueError(
                    f"weights are for models of the family, but it has no {name!r}; "
                    f"{nearest(name, self.members)}"
                )
        missing = [name for name in self.members if name not in checkpoint]
        if missing:
            raise InvalidValueError(
                f"each model of a family needs its weights, but there are none for {missing[0]!r}"
            )
        return self.around(self._units(checkpoint)).eval()

    def around(self, units: Sequence[Unit]) -> "FamilyModel":
        """See :meth:`ElasticSpace.around`."""
        return FamilyModel(self.whole, units)

    def _filled(self, checkpoint: str) -> dict[str, str]:
        return {name: checkpoint.replace(f"{{{MODEL}}}", name) for name in self.members}

    def _units(self, checkpoints: Mapping[str, str]) -> list[Unit]:
        return [
            MemberUnit(name, unit)
            for name, space in self.members.items()
            for unit in space.units(checkpoints.get(name))
        ]


class FamilyModel(ElasticModel):
    """The chains of several models; a path runs one of them."""

    def parts(self) -> list[ElasticModel]:
        """The models of the family, from the cheapest to the dearest, around the same units."""
        assert isinstance(self.space, FamilySpace)
        return [self._member(name) for name in self.space.members]

    def _extracted(self, path: ExecutionPath, own: PathTensors | None) -> nn.Module:
        """As the model that the path names gives it."""
        own = own or self.own.get(path)
        inner = PathTensors(member_path(path), self._inside(own)) if own is not None else None
        return self._member(str(path[MODEL])).extract(member_path(path), inner)

    def _inside(self, own: PathTensors) -> dict[str, Tensor | None]:
        """A path's tensors under the names that its own model has for them."""
        found = {}
        for key, unit in self.units.items():
            outside = f"units.{key}.inner."
            assert isinstance(unit, MemberUnit)
            inside = f"units.{unit.inner.name.replace('.', '_')}."
            for name, tensor in own.tensors.items():
                if name.startswith(outside):
                    found[name.replace(outside, inside, 1)] = tensor
        return found

    def _member(self, name: str) -> ElasticModel:
        assert isinstance(self.space, FamilySpace)
        units = [u.inner for u in self.chain if isinstance(u, MemberUnit) and u.member == name]
        member = self.space.members[name].around(units)
        member.train(self.training)
        return member


def member_path(path: Mapping[str, Value]) -> ExecutionPath:
    """A family's path as its model knows it."""
    prefix = f"{path[MODEL]}."
    return ExecutionPath(
        {name.removeprefix(prefix): v for name, v in path.items() if name.startswith(prefix)}
    )


class MemberUnit(Unit):
    """A unit of one model of a family.

    Args:
        member: the model's name.
        inner: the unit.
    """

    def __init__(self, member: str, inner: Unit) -> None:
        super().__init__(
            f"{member}.{inner.name}",
            decisions=[f"{member}.{name}" for name in inner.decisions],
            requires=_condition(member, inner.requires),
        )
        self.member = member
        self.inner = inner
        self.is_exit = inner.is_exit

    def _own(self, choice: Choice) -> Choice:
        return {name.removeprefix(f"{self.member}."): value for name, value in choice.items()}

    def forward(self, state: State, choice: Choice) -> State:
        return self.inner(state, self._own(choice))

    def extract(self, choice: Choice) -> nn.Module:
        return self.inner.extract(self._own(choice))

    def channel_groups(self) -> list[ChannelGroup]:
        return [group.inside("inner") for group in self.inner.channel_groups()]


def _member(name: str, entry: Any) -> ElasticSpace:
    legal = ("space", "options")
    if "." in name or not isinstance(entry, Mapping) or "space" not in entry:
        raise InvalidValueError(
            f"members: each must be a name without a dot and a mapping with space and options, "
            f"but got {name!r}: {entry!r:.80}"
        )
    for key in entry:
        if key not in legal:
            raise InvalidValueError(f"members: {name!r} has no {key!r}; {nearest(str(key), legal)}")
    space, options = entry["space"], entry.get("options", {})
    if not isinstance(space, str):
        raise InvalidValueError(f"members: {name!r} must name its space, but got {space!r:.80}")
    if not (isinstance(options, Mapping) and all(isinstance(key, str) for key in options)):
        raise InvalidValueError(
            f"members: options of {name!r} must be a mapping, but got {options!r:.80}"
        )
    try:
        return create_space(space, **options)
    except InvalidValueError as error:
        raise InvalidValueError(f"members: {name!r}: {error}") from error


def _full_macs(space: ElasticSpace) -> int:
    traces = trace_units(build_on_meta(space), space.full)
    return sum(total_macs(trace.layers) for trace in traces)


def _prefixed(member: str, decision: Decision) -> Decision:
    return Decision(
        f"{member}.{decision.name}",
        decision.values,
        _condition(member, decision.requires),
        decision.aliases,
    )


def _condition(member: str, inner: Condition | None) -> Condition:
    if inner is None:
        return Condition(MODEL, (member,))
    return Condition(f"{member}.{inner.decision}", inner.values)
