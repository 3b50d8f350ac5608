"""The names of built-in accelerators, known without importing what prices paths."""

from importlib import resources
from importlib.resources.abc import Traversable

from paretopath.errors import HardwareError, nearest


def presets() -> Traversable:
    """The folder of their files."""
    return resources.files("paretopath") / "cost" / "presets"


def preset_names() -> list[str]:
    """In the alphabet's order."""
    names = (entry.name for entry in presets().iterdir())
    return sorted(name.removesuffix(".yaml") for name in names if name.endswith(".yaml"))


def require_preset(name: str, *, other: str | None = None) -> str:
    """A name that there is.

    Args:
        name: what was given.
        other: another name that is legal.

    Raises:
        HardwareError: there is none.
    """
    legal = [*preset_names(), *([other] if other else [])]
    if name not in legal:
        raise HardwareError(f"there is no hardware preset {name!r}; {nearest(name, legal)}")
    return name
