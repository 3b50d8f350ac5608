"""Execution paths of vision models: their search, their cost, their retraining, one dynamic model.

What a user's script needs has its name here; each is imported when it is first asked for, so that
``import paretopath`` takes no time. Everything else is in the rooms of this package, which
``docs/architecture.md`` lists.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paretopath.cost import CostTable
    from paretopath.cost import create as cost_model
    from paretopath.deploy.dynamic_model import DynamicModel
    from paretopath.elastic.registry import create_space, space_names
    from paretopath.errors import ParetopathError
    from paretopath.front import Front, load_front
    from paretopath.paths import Condition, Decision, ExecutionPath, SearchSpace
    from paretopath.recipe import Recipe, load_recipe
    from paretopath.search import load_study

__version__ = version("paretopath")

# public name -> module and, where it differs, the name there
_PUBLIC = {
    "Condition": ("paretopath.paths", "Condition"),
    "CostTable": ("paretopath.cost.table", "CostTable"),
    "Decision": ("paretopath.paths", "Decision"),
    "DynamicModel": ("paretopath.deploy.dynamic_model", "DynamicModel"),
    "ExecutionPath": ("paretopath.paths", "ExecutionPath"),
    "Front": ("paretopath.front", "Front"),
    "ParetopathError": ("paretopath.errors", "ParetopathError"),
    "Recipe": ("paretopath.recipe", "Recipe"),
    "SearchSpace": ("paretopath.paths", "SearchSpace"),
    "cost_model": ("paretopath.cost", "create"),
    "create_space": ("paretopath.elastic.registry", "create_space"),
    "load_front": ("paretopath.front", "load_front"),
    "load_recipe": ("paretopath.recipe", "load_recipe"),
    "load_study": ("paretopath.search", "load_study"),
    "space_names": ("paretopath.elastic.registry", "space_names"),
}

__all__ = [
    "Condition",
    "CostTable",
    "Decision",
    "DynamicModel",
    "ExecutionPath",
    "Front",
    "ParetopathError",
    "Recipe",
    "SearchSpace",
    "__version__",
    "cost_model",
    "create_space",
    "load_front",
    "load_recipe",
    "load_study",
    "space_names",
]


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _PUBLIC[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return sorted(__all__)
