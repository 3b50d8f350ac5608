"""Hardware cost: what layers and units take in energy, time and traffic.

>>> model = create("accelerator", preset="magnet-16nm")
>>> costs = model.price(layers)
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from pipeline.cost.model import CostModel, Costs, LayerCostModel
from pipeline.errors import InvalidValueError, nearest

if TYPE_CHECKING:
    from pipeline.cost.accelerator import AcceleratorModel, Objective
    from pipeline.cost.mapper import MapperModel
    from pipeline.cost.table import CostTable

KINDS = ("accelerator", "mapper", "device")


def create(
    kind: str = "accelerator",
    *,
    preset: str | None = None,
    hardware: str | Path | None = None,
    mapping: str | Path | None = None,
    objective: "Objective" = "each",
    cache_dir: str | Path | None = None,
    workers: int | None = None,
) -> "AcceleratorModel | MapperModel":
    """Makes a cost model.

    Args:
        kind: ``accelerator`` (analytic).
        preset: hardware by name.
        hardware: a hardware file instead, of this package's schema or ZigZag's.
        mapping: ZigZag's mapping file, with ZigZag's hardware file.
        objective: what mappings are chosen for, see :class:`~pipeline.cost.accelerator.AcceleratorModel`.

    Raises:
        InvalidValueError: an unknown kind.
        HardwareError: hardware that can't be read.
    """
    if kind == "mapper":
        from pipeline.cost.design import load_design
        from pipeline.cost.mapper import MapperModel

        design = load_design(preset=preset, hardware=hardware, mapping=mapping)
        return MapperModel(design, objective=objective, cache_dir=cache_dir, workers=workers)
    if kind == "accelerator":
        from pipeline.cost.accelerator import AcceleratorModel
        from pipeline.cost.design import load_design

        return AcceleratorModel(
            load_design(preset=preset, hardware=hardware, mapping=mapping), objective=objective
        )
    raise InvalidValueError(f"there is no cost model {kind!r}; {nearest(kind, KINDS)}")


def __getattr__(name: str) -> Any:
    if name == "CostTable":  # after the models it prices with: the table imports this package
        from pipeline.cost.table import CostTable

        return CostTable
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = ["KINDS", "CostModel", "CostTable", "Costs", "LayerCostModel", "create"]
