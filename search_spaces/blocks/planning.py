"""What a model's units may do: found by tracing, and tried before it is offered."""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor, fx, nn
from torch.utils._pytree import tree_flatten

from search_spaces.blocks.cutting import Piece, Traced
from search_spaces.blocks.groups import find_groups
from search_spaces.blocks.heads import find_heads
from search_spaces.blocks.residual import find_sums
from search_spaces.blocks.spans import Group
from search_spaces.blocks.streams import Writer
from search_spaces.blocks.trials import tried
from search_spaces.blocks.weighing import Weights


@dataclass(frozen=True)
class UnitPlan:
    """What a unit may do.

    Attributes:
        piece: the part of the model that it runs.
        groups: the channels that its decision narrows.
        adds: whether it adds to its input, so that it may be left out.
        writers: its layers whose results are added to a stream.
        gives: the shape of the tensor that it hands on, batch first; None where that is more than
            one tensor, or the model's output.
    """

    piece: Piece
    groups: tuple[Group, ...]
    adds: bool
    writers: tuple[Writer, ...] = ()
    gives: tuple[int, ...] | None = None


@dataclass(frozen=True)
class Plan:
    """A model's units, and what could not be found.

    Attributes:
        units: in the order in which they run.
        left: for each module, or layer, that keeps its form though it might not have to: why.
        classifiers: the layers that give the classes.
        repeated: the layers that run more than once.
        output: what the model gives for the example.
    """

    units: tuple[UnitPlan, ...]
    left: Mapping[str, str]
    classifiers: tuple[str, ...]
    repeated: frozenset[str]
    output: Any


def plan(model: nn.Module, images: Tensor) -> Plan:
    """Looks at a model.

    Args:
        model: in evaluation mode; on the meta device nothing can be tried, and the graph is
            believed.
        images: (B, C, Y, X), an example.
    """
    weights = Weights(model, images)
    traced = Traced(model, images, weights)
    left = {name or "model": f"can't be traced ({said})" for name, said in traced.whole.items()}
    breaks: set[str] = set()
    for piece in traced.pieces():
        if piece.block is None:
            found = find_groups(piece.body(model), traced.state_before(piece))
            breaks |= _breaks(piece, found.groups)
    repeated = frozenset(name for name, calls in weights.calls.items() if calls > 1)
    units: list[UnitPlan] = []
    known: dict[Hashable, tuple[str, _Look]] = {}
    for piece in traced.pieces(breaks):
        body, state = piece.body(model), traced.state_before(piece)
        alike = _signature(piece, body, state)
        if alike not in known:
            known[alike] = str(piece.block), _look(piece, body, state)
        block, look = known[alike]
        look = look if block == piece.block else look.renamed(block, str(piece.block))
        once = tuple(writer for writer in look.writers if writer.layer not in repeated)
        if any(repeated & group.layers for group in look.groups):
            look = replace(look, groups=(), left={piece.name: "it runs more than once"})
        for name, why in look.left.items():
            module = name or piece.name
            left[module] = f"{left[module]}; {why}" if module in left else why
        if units:
            units[-1] = replace(units[-1], gives=_shape(state))
        units.append(UnitPlan(piece, look.groups, look.adds, once))
    return Plan(tuple(units), left, weights.classifiers(), repeated, weights.output)


def _shape(state: Any) -> tuple[int, ...] | None:
    """Of a state that is one tensor of features."""
    return tuple(state.shape) if isinstance(state, Tensor) and state.is_floating_point() else None


@dataclass(frozen=True)
class _Look:
    """What was found of a piece; see :class:`UnitPlan` and :class:`Plan`."""

    groups: tuple[Group, ...]
    adds: bool
    writers: tuple[Writer, ...]
    left: Mapping[str, str]

    def renamed(self, old: str, new: str) -> "_Look":
        """The same of another block that is alike."""

        def name(found: str) -> str:
            return f"{new}{found.removeprefix(old)}" if found.startswith(old) else found

        return _Look(
            tuple(group.renamed(name) for group in self.groups),
            self.adds,
            tuple(writer.renamed(name) for writer in self.writers),
            {name(layer): why.replace(f"{old}.", f"{new}.") for layer, why in self.left.items()},
        )


def _look(piece: Piece, body: nn.Module, state: Any) -> _Look:
    like_attention = list(find_heads(body))
    found = find_groups(body, state, [group.name for group in like_attention if group.name])
    heads, wrong_heads = tried(body, like_attention, state)
    taken = set[str]().union(*(group.layers for group in heads))
    others = [group for group in _without_gates(found.groups) if not taken & group.layers]
    groups, wrong = tried(body, others, state)
    known = {layer for group in like_attention for layer in group.makers}
    left = {name: why for name, why in {**found.left, **wrong}.items() if name not in known}
    place = piece.replaces if piece.block is not None else None
    adds, writers = find_sums(body, (*heads, *groups), state, place)
    return _Look((*heads, *groups), adds, writers, wrong_heads | left)


def _signature(piece: Piece, body: nn.Module, state: Any) -> Hashable:
    """What is equal for blocks that are alike: how they are called, classes, settings, shapes."""
    if piece.block is None:
        return piece.name
    leaves, structure = tree_flatten(state)
    shapes = tuple(getattr(leaf, "shape", leaf) for leaf in leaves)
    block = tuple(_described(body.get_submodule(piece.block)))
    return str(structure), shapes, piece.replaces, tuple(_calls(piece)), block


def _calls(piece: Piece) -> Iterator[Hashable]:
    """A piece's graph without names."""
    places = {node: f"node {i}" for i, node in enumerate(piece.graph.nodes)}
    for node in piece.graph.nodes:
        target = "" if node.target in (piece.block, node.name) else str(node.target)
        yield node.op, target, repr(fx.node.map_arg((node.args, node.kwargs), places.get))


def _described(block: nn.Module) -> Iterator[Hashable]:
    for name, module in block.named_modules():
        settings = sorted(
            (key, repr(value))
            for key, value in vars(module).items()
            if isinstance(value, bool | int | float | str | tuple | None)
        )
        tensors = [*module._parameters.items(), *module._buffers.items()]
        shapes = tuple((key, None if t is None else t.shape) for key, t in tensors)
        yield name, type(module), tuple(settings), shapes


def _breaks(piece: Piece, groups: Sequence[Group]) -> set[str]:
    """Nodes before which to cut what lies between blocks, so that a unit has few groups.

    A group that begins after another one has ended can be in a unit of its own.
    """
    places = [sorted(_place(piece, layer) for layer in group.layers) for group in groups]
    breaks, end = set(), -1
    for first, *_, last in sorted(places):
        if first > end:
            if end >= 0:
                breaks.add(piece.calls[first][0])
            end = last
    return breaks


def _place(piece: Piece, layer: str) -> int:
    """The call of a piece inside which a layer runs."""
    for i, (_, module) in enumerate(piece.calls):
        if f"{layer}.".startswith(f"{module}." if module else ""):
            return i
    raise ValueError(f"{layer} does not run in {piece.name}")


def _without_gates(groups: Sequence[Group]) -> tuple[Group, ...]:
    """The groups but those that only gate others: squeeze-excitation keeps its width.

    A gate reads a group's channels, and all that it makes is factors for the same ones.
    """
    return tuple(
        group
        for group in groups
        if not any(
            set(group.makers) & {span.layer for span in other.readers}
            and {span.layer for span in group.readers} <= set(other.makers)
            for other in groups
        )
    )
