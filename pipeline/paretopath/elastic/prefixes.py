"""Paths as a tree of shared steps, walked depth first with few states alive."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paretopath.elastic.own import PathTensors
from paretopath.elastic.units import Chain, State, Step, Unit
from paretopath.paths import ABSENT, ExecutionPath, SearchSpace, Value


@dataclass
class Node:
    """One step that every path through it shares.

    Attributes:
        step: what runs here.
        children: what runs next, on the paths that go on; the one with most paths last.
        paths: indices of the paths that end here.
        count: how many paths run through it.
    """

    step: Step
    children: list["Node"] = field(default_factory=list)
    paths: list[int] = field(default_factory=list)
    count: int = 0


def _run_step(node: Node, state: State) -> State:
    return node.step(state)


class PrefixTree:
    """The steps of a population of paths, shared prefixes merged.

    While a branch is walked that is not its parent's last, the parent's state waits. Such a branch
    has at most half of the parent's paths, since the largest comes last: at most log2(paths) states
    wait at a time, whatever the depth. (The same order keeps registers few in a tree of
    expressions: Sethi and Ullman, JACM 17(4), 1970.)

    Args:
        model: whose units.
        paths: canonical paths.
        skip: so many first steps are left out: :meth:`run` starts from what they give. All paths
            must share them.
        own: what paths have for themselves, besides what the model knows of; they share the steps
            for which they have the same.
    """

    def __init__(
        self,
        model: Chain,
        paths: Sequence[Mapping[str, Value]],
        *,
        skip: int = 0,
        own: Mapping[ExecutionPath, PathTensors] | None = None,
    ) -> None:
        self.roots: list[Node] = []
        known: dict[tuple[int, Step], Node] = {}  # by parent and step
        for index, path in enumerate(paths):
            level, parent = self.roots, 0
            node: Node | None = None
            for step in model.steps(path, own.get(ExecutionPath(path)) if own else None)[skip:]:
                node = known.get((parent, step))
                if node is None:
                    node = known[parent, step] = Node(step)
                    level.append(node)
                node.count += 1
                level, parent = node.children, id(node)
            assert node is not None
            node.paths.append(index)
        for node in known.values():
            node.children.sort(key=lambda child: child.count)
        self.roots.sort(key=lambda root: root.count)

    @property
    def most_states(self) -> int:
        """The bound of :meth:`run`: states that wait, and the two of the step that runs."""
        paths = sum(root.count for root in self.roots)
        return max(paths, 1).bit_length() - 1 + 2

    def nodes(self) -> Iterator[Node]:
        """All nodes, depth first: the steps that one batch runs."""
        stack = self.roots[::-1]
        while stack:
            node = stack.pop()
            yield node
            stack.extend(node.children[::-1])

    def run(
        self, images: State, through: Callable[[Node, State], State] = _run_step
    ) -> Iterator[tuple[int, Any]]:
        """Yields (path index, output) for a batch, each distinct step run once, depth first.

        At most :attr:`most_states` states are alive at a time besides ``images``.

        Args:
            images: the batch, or whatever reaches the first steps.
            through: what a node makes of the state that reaches it.
        """
        stack: list[tuple[Node, State]] = [(node, images) for node in self.roots[::-1]]
        del images
        while stack:
            node, state = stack.pop()
            state = through(node, state)
            for index in node.paths:
                yield index, state
            stack.extend((child, state) for child in node.children[::-1])
            del state


def settled_steps(model: Chain, space: SearchSpace) -> int:
    """How many first steps all paths of a space share: no decision changes what they compute.

    Args:
        model: whose units.
        space: that is searched: the model's, or a restriction of it.
    """
    count = 0
    for unit in model.chain:
        runs = _settled(unit, space)
        if runs is None or unit.is_exit:
            break
        count += runs
    return count


def _settled(unit: Unit, space: SearchSpace) -> bool | None:
    """Whether the unit runs on all paths (True) or none (False) and alike; None if that varies."""
    required = unit.requires
    if required is not None:
        found = _only_value(space, required.decision)
        if found is None:
            return None
        if found == ABSENT or space[required.decision].values[found] not in required.values:
            return False
    return True if all(_only_value(space, name) is not None for name in unit.decisions) else None


def _only_value(space: SearchSpace, name: str) -> int | None:
    """The index that a decision has on all paths, ABSENT if it never matters; None if it varies."""
    decision = space[name]
    if decision.requires is not None:
        needed = space[decision.requires.decision]
        outer = _only_value(space, needed.name)
        if outer is None:
            return None
        if outer == ABSENT or needed.values[outer] not in decision.requires.values:
            return ABSENT
    return decision.index(decision.distinct[0]) if len(decision.distinct) == 1 else None
