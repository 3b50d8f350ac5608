"""Hardware cost: what layers and units take in energy, time and traffic.

>>> model = create("accelerator", preset="magnet-16nm")
>>> costs = model.price(layers)
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from paretopath.cost.model import CostModel, Costs, LayerCostModel
from paretopath.errors import InvalidValueError, nearest

if TYPE_CHECKING:
    from paretopath.cost.accelerator import AcceleratorModel, Objective
    from paretopath.cost.device import DeviceCostModel
    from paretopath.cost.mapper import MapperModel
    from paretopath.cost.table import CostTable

KINDS = ("accelerator", "mapper", "device")


@overload
def create(
    kind: Literal["accelerator"] = "accelerator",
    *,
    preset: str | None = None,
    hardware: str | Path | None = None,
    mapping: str | Path | None = None,
    objective: "Objective" = "each",
    max_factors: int = 6,
    progress: Callable[[int, int], None] = ...,
) -> "AcceleratorModel": ...


@overload
def create(
    kind: Literal["mapper"],
    *,
    preset: str | None = None,
    hardware: str | Path | None = None,
    mapping: str | Path | None = None,
    objective: "Objective" = "each",
    cache_dir: str | Path | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> "MapperModel": ...


@overload
def create(kind: Literal["device"], **options: Any) -> "DeviceCostModel": ...


@overload
def create(kind: str, **options: Any) -> CostModel: ...


def create(kind: str = "accelerator", **options: Any) -> CostModel:
    """Makes a cost model.

    Args:
        kind: ``accelerator`` (analytic), ``mapper`` (ZigZag's search, the reference for it) or
            ``device`` (measured here).
        options: of the accelerator and the mapper: ``preset``, hardware by name, or ``hardware``, a
            file of this package's schema or ZigZag's, with ``mapping``, ZigZag's mapping file. The
            rest are the arguments of :class:`~paretopath.cost.accelerator.AcceleratorModel`,
            :class:`~paretopath.cost.mapper.MapperModel` and
            :class:`~paretopath.cost.device.DeviceCostModel`.

    Raises:
        InvalidValueError: an unknown kind or option, or an illegal value.
        HardwareError: hardware that can't be read.
        MissingExtraError: what the kind needs is not installed.
    """
    factories: dict[str, Callable[[], Callable[..., CostModel]]] = {
        "accelerator": _accelerator,
        "mapper": _mapper,
        "device": _device,
    }
    if kind not in factories:
        raise InvalidValueError(f"there is no cost model {kind!r}; {nearest(kind, KINDS)}")
    model = factories[kind]()
    legal = list(inspect.signature(model).parameters)
    on_design = legal[0] == "design"
    if on_design:
        legal = ["preset", "hardware", "mapping", *legal[1:]]
    for name in options:
        if name not in legal:
            raise InvalidValueError(
                f"the cost model {kind!r} has no {name!r}; {nearest(name, legal)}"
            )
    if not on_design:
        return model(**options)
    from paretopath.cost.design import load_design

    files = {name: options.pop(name, None) for name in ("preset", "hardware", "mapping")}
    return model(load_design(**files), **options)


def _accelerator() -> "type[AcceleratorModel]":
    from paretopath.cost.accelerator import AcceleratorModel

    return AcceleratorModel


def _mapper() -> "type[MapperModel]":
    from paretopath.cost.mapper import MapperModel

    return MapperModel


def _device() -> "type[DeviceCostModel]":
    from paretopath.cost.device import DeviceCostModel

    return DeviceCostModel


def __getattr__(name: str) -> Any:
    if name == "CostTable":  # late: the table stands after the models that it prices with
        from paretopath.cost.table import CostTable

        return CostTable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["KINDS", "CostModel", "CostTable", "Costs", "LayerCostModel", "create"]
