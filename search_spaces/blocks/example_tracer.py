"""``torch.fx`` for models that ask on their way what only an example knows."""

import inspect
from collections.abc import Iterator, Mapping
from operator import attrgetter
from typing import Any

from torch import Tensor, fx, nn

from search_spaces.timm_alone import get_notrace_functions


class ExampleTracer(fx.Tracer):
    """Traces through some modules alone, and runs what it traces on an example.

    So what a model's code asks of shapes, types and settings on its way has an answer: that of the
    example. What it asks of a tensor's content has none.

    Args:
        through: the names of these modules; every other one is a call.
        images: the example.
        defaults: of what the model takes besides.

    Attributes:
        innermost: the module inside which tracing was when it failed.
    """

    def __init__(self, through: set[str], images: Tensor, defaults: Mapping[str, Any]) -> None:
        functions = tuple(f for f in get_notrace_functions() if callable(f))
        super().__init__(autowrap_functions=functions)
        self.through = through
        self.defaults = dict(defaults)
        self.innermost = ""
        self._failed = False
        self._runs = False
        self._given = iter((images, *defaults.values()))
        self._values: dict[fx.Node, Any] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return module_qualified_name not in self.through

    def call_module(
        self, m: nn.Module, forward: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        if self._runs:
            return forward(*args, **kwargs)
        try:
            return super().call_module(m, forward, args, kwargs)
        except Exception:
            name = self.path_of_module(m)
            if not self._failed and name in self.through:
                self._failed, self.innermost = True, name
            raise

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, Any]) -> Any:
        if self._runs:
            return attr_val
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def create_proxy(self, *args: Any, **kwargs: Any) -> Any:
        proxy: fx.Proxy = super().create_proxy(*args, **kwargs)
        is_nothing = self.value(proxy.node) is None and proxy.node.op != "placeholder"
        return None if is_nothing else proxy  # so that ``is None`` has an answer

    def to_bool(self, obj: fx.Proxy) -> bool:
        value = self.value(obj.node)
        return super().to_bool(obj) if isinstance(value, Tensor) else bool(value)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def iter(self, obj: fx.Proxy) -> Iterator[Any]:
        return (obj[i] for i in range(len(self.value(obj.node))))  # type: ignore[index]

    def value(self, node: fx.Node) -> Any:
        """What a node gives for the example."""
        if node not in self._values:
            is_outermost, self._runs = not self._runs, True
            try:
                self._values[node] = self._run(node)
            finally:
                self._runs = not is_outermost
        return self._values[node]

    def _run(self, node: fx.Node) -> Any:
        if node.op == "placeholder":
            return next(self._given)
        if node.op == "get_attr":
            return attrgetter(str(node.target))(self.root)
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), self.value)
        if callable(node.target):
            return node.target(*args, **kwargs)
        if node.op == "call_module":
            return self.root.get_submodule(node.target)(*args, **kwargs)
        return getattr(args[0], node.target)(*args[1:], **kwargs)


class _Proxy(fx.Proxy):
    """A stand-in that has the length of what it stands for."""

    tracer: ExampleTracer

    def __len__(self) -> int:
        return len(self.tracer.value(self.node))


def defaults(model: nn.Module) -> dict[str, Any]:
    """The defaults of what a model's forward takes besides images."""
    _, *others = inspect.signature(model.forward).parameters.values()
    return {p.name: p.default for p in others if p.default is not inspect.Parameter.empty}
