"""What a checkpoint did not bring: parameters to be trained before anything is measured.

Marks stand on the modules that hold the parameters, so they stay with these modules, and with
copies of them, wherever a family puts them.
"""

from collections.abc import Iterable

from torch import nn

COPIED_EXITS = "no exits but the last"
"""Why exits are new that are copies of the last one."""

_MARK = "_new_parameters"  # an attribute of a module: why, by name of the parameter


def mark_new(module: nn.Module, why: str, names: Iterable[str] | None = None) -> None:
    """Marks parameters as new: random, or copies that mean little where they are.

    Args:
        module: that holds them, at any depth.
        why: what the checkpoint lacks, after "it has": ``no exits but the last``.
        names: dotted, within the module; all by default. Names of buffers are passed over.
    """
    wanted = None if names is None else set(names)
    for name, _ in list(module.named_parameters()):
        if wanted is not None and name not in wanted:
            continue
        holder, _, leaf = name.rpartition(".")
        owner = module.get_submodule(holder)
        owner.__dict__[_MARK] = {**owner.__dict__.get(_MARK, {}), leaf: why}


def take_marks(module: nn.Module, other: nn.Module) -> None:
    """Gives a module the marks of another whose parameters it took over under the same names."""
    if _MARK in other.__dict__:
        module.__dict__[_MARK] = other.__dict__[_MARK]


def new_parameters(model: nn.Module) -> dict[str, str]:
    """The names of a model's parameters that are marked as new, each with why."""
    return {
        f"{holder}.{leaf}".lstrip("."): why
        for holder, module in model.named_modules()
        for leaf, why in module.__dict__.get(_MARK, {}).items()
        if leaf in module._parameters
    }


def plain_name(name: str) -> str:
    """A parameter's name without what the chain of units puts before it; as the original model has
    it, where its unit holds pieces of that (``units.UNIT.body.NAME``).
    """
    return name.partition(".body.")[2] or name.removeprefix("units.")


def unmark(model: nn.Module, why: str) -> list[nn.Module]:
    """Takes marks of one reason away; the modules that had them."""
    found = []
    for module in model.modules():
        marks = module.__dict__.get(_MARK, {})
        if why in marks.values():
            module.__dict__[_MARK] = {leaf: w for leaf, w in marks.items() if w != why}
            found.append(module)
    return found
