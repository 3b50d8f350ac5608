"""A model's graph, cut into a chain of pieces at its blocks.

Only what lies around the blocks is traced (``torch.fx``); a block itself may do as it likes. What
is live at a cut is the state: one tensor, or a tuple of several, so a long skip passes through.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils._pytree import tree_leaves

from search_spaces.blocks.example_tracer import ExampleTracer, defaults
from search_spaces.blocks.weighing import Weights


@dataclass(frozen=True)
class Piece:
    """A part of a model's graph between two cuts.

    Attributes:
        name: of the block, or of the first layer with weights, in the model.
        graph: from the state that reaches the piece to the next one; modules by their names in the
            model.
        block: the name of the block that it calls; None where it lies between blocks.
        inputs, outputs: the tensors that are live before and after it, by their names in the graph.
        calls: names of its nodes that call modules, each with the module's.
    """

    name: str
    graph: fx.Graph
    block: str | None
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    calls: tuple[tuple[str, str], ...]

    def body(self, model: nn.Module) -> nn.Module:
        """The piece with its modules, which are a model's own, by the same names."""
        if self.block == "":
            return model
        graph = fx.Graph()
        graph.output(graph.graph_copy(self.graph, {}))
        return fx.GraphModule(model, graph).train(model.training)

    @property
    def only_calls(self) -> bool:
        """Whether it is no more than one module that takes the state and gives the next one."""
        state, *nodes, output = self.graph.nodes
        return (
            len(nodes) == 1
            and self.block is not None
            and (nodes[0].args == (state,) and not nodes[0].kwargs and output.args == (nodes[0],))
        )

    @property
    def replaces(self) -> int | None:
        """The place in the state of the one tensor that the piece replaces; None if it does more.

        Only such a piece can be left out of the chain.
        """
        if len(self.inputs) != len(self.outputs):
            return None
        changed = [
            i
            for i, pair in enumerate(zip(self.inputs, self.outputs, strict=True))
            if pair[0] != pair[1]
        ]
        return changed[0] if len(changed) == 1 else None


class Traced:
    """A model's graph around its blocks.

    Args:
        model: in evaluation mode; its forward takes images and may take more, with defaults.
        images: (B, C, Y, X), an example.
        weights: of it.

    Attributes:
        whole: for each module that could not be traced through, and so is one block, the reason;
            ``""`` for the model itself.
    """

    def __init__(self, model: nn.Module, images: Tensor, weights: Weights) -> None:
        self.weights = weights
        self.whole: dict[str, str] = {}
        graph, self._values = self._trace(model, images)
        placeholder, *self._nodes, self._output = graph.nodes
        self._images = placeholder
        self._moving = _from_images(placeholder, self._nodes, self._values)

    def _trace(self, model: nn.Module, images: Tensor) -> tuple[fx.Graph, dict[fx.Node, Any]]:
        """A model's graph, and what its nodes give for the images."""
        through = self.weights.holders()
        while True:
            tracer = ExampleTracer(through, images, defaults(model))
            try:
                with torch.no_grad():
                    graph = tracer.trace(model, concrete_args=tracer.defaults)
            except Exception as error:  # whatever a model's code does with a stand-in for a tensor
                said = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
                self.whole[tracer.innermost] = said
                if not tracer.innermost:
                    return _call_of_all(images, self.weights.output)
                inside = f"{tracer.innermost}."
                through = {name for name in through if not f"{name}.".startswith(inside)}
            else:
                _forget_defaults(graph)
                return graph, {node: tracer.value(node) for node in list(graph.nodes)[:-1]}

    def pieces(self, breaks: Collection[str] = ()) -> tuple[Piece, ...]:
        """The chain of pieces: each block alone, and what lies between them.

        Args:
            breaks: names of nodes before which there shall be a cut too.
        """
        runs = [run for run in self._runs(breaks) if any(node in self._moving for node in run)]
        needs = [_needs(run, self._moving) for run in runs]
        pieces: list[Piece] = []
        state, names = [self._images], set[str]()
        for i, run in enumerate(runs):
            last = i == len(runs) - 1
            later = set().union(_needs([self._output], self._moving), *needs[i + 1 :])
            after = _next_state(state, [node for node in run if node in self._moving], later)
            given = self._output.args[0] if last else after[0] if len(after) == 1 else tuple(after)
            pieces.append(
                Piece(
                    _unique(self._name(run), names),
                    _part(run, state, given, self._moving),
                    self._block(run),
                    tuple(node.name for node in state),
                    tuple(node.name for node in after),
                    tuple((n.name, str(n.target)) for n in run if n.op == "call_module"),
                )
            )
            state = after
        return tuple(pieces)

    def state_before(self, piece: Piece) -> Any:
        """What reaches a piece, for the images."""
        known = {node.name: node for node in self._moving}
        tensors = tuple(self._values[known[name]] for name in piece.inputs)
        return tensors if len(tensors) > 1 else tensors[0]

    def _runs(self, breaks: Collection[str]) -> list[list[fx.Node]]:
        runs: list[list[fx.Node]] = [[]]
        for node in self._nodes:
            if self._is_block(node):
                runs += [[node], []]
            elif node.name in breaks:
                runs.append([node])
            else:
                runs[-1].append(node)
        return runs

    def _is_block(self, node: fx.Node) -> bool:
        return node.op == "call_module" and self.weights.is_block(str(node.target))

    def _block(self, run: Sequence[fx.Node]) -> str | None:
        return str(run[0].target) if len(run) == 1 and self._is_block(run[0]) else None

    def _name(self, run: Sequence[fx.Node]) -> str:
        """The first module with weights, or else the first module, or else the first operation."""
        called = [str(node.target) for node in run if node.op == "call_module"]
        heavy = [name for name in called if self.weights.of(name)]
        return (heavy or called or [run[0].name])[0] or "model"


def _call_of_all(images: Tensor, output: Any) -> tuple[fx.Graph, dict[fx.Node, Any]]:
    """The graph of a model that is one call of itself."""
    graph = fx.Graph()
    x = graph.placeholder("x")
    called = graph.call_module("", (x,))
    graph.output(called)
    return graph, {x: images, called: output}


def _forget_defaults(graph: fx.Graph) -> None:
    """Takes away the arguments that tracing fixed, and its checks of them."""
    _, *fixed = [node for node in graph.nodes if node.op == "placeholder"]
    for node in fixed:
        fixed += [user for user in node.users if user not in fixed]
    for node in reversed(fixed):
        graph.erase_node(node)


def _from_images(
    placeholder: fx.Node, nodes: Sequence[fx.Node], values: Mapping[fx.Node, Any]
) -> set[fx.Node]:
    """The nodes that can be part of a state: tensors that depend on the images.

    Sizes, parameters and tables are computed anew where they are needed.
    """
    depends, moving = {placeholder}, {placeholder}
    for node in nodes:
        if depends & set(node.all_input_nodes):
            depends.add(node)
            if any(isinstance(leaf, Tensor) for leaf in tree_leaves(values[node])):
                moving.add(node)
    return moving


def _needs(nodes: Sequence[fx.Node], moving: set[fx.Node]) -> set[fx.Node]:
    """The tensors that some nodes take from before; what is computed anew is followed back."""
    own, found, pending = set(nodes), set[fx.Node](), list(nodes)
    while pending:
        for node in pending.pop().all_input_nodes:
            if node in moving and node not in own:
                found.add(node)
            elif node not in own:
                own.add(node)
                pending.append(node)
    return found


def _next_state(
    state: Sequence[fx.Node], made: Sequence[fx.Node], later: set[fx.Node]
) -> list[fx.Node]:
    """What is live after a piece; one tensor made for one that goes takes its place."""
    born = [node for node in made if node in later]
    gone = [node for node in state if node not in later]
    if len(born) == 1 and len(gone) == 1:
        return [born[0] if node is gone[0] else node for node in state]
    return [*(node for node in state if node in later), *born]


def _part(
    run: Sequence[fx.Node],
    state: Sequence[fx.Node],
    given: Any,
    moving: set[fx.Node],
) -> fx.Graph:
    """The graph of a piece: state in, state out; a state of one tensor is that tensor."""
    graph = fx.Graph()
    x = graph.placeholder("state")
    env = {state[0]: x}
    if len(state) > 1:
        env = {n: graph.call_function(_item, (x, i)) for i, n in enumerate(state)}

    def copied(node: fx.Node) -> fx.Node:
        if node not in env:
            env[node] = graph.node_copy(node, copied)
        return env[node]

    for node in run:
        if node in moving:
            copied(node)
    graph.output(fx.node.map_arg(given, copied))
    return graph


def _item(state: Any, index: int) -> Any:
    return state[index]


def _unique(name: str, taken: set[str]) -> str:
    """The name, or with a number after it where a unit's key is taken."""
    found, number = name, 2
    while found.replace(".", "_") in taken:
        found, number = f"{name}_{number}", number + 1
    taken.add(found.replace(".", "_"))
    return found
