"""The layers that hardware sees of a path, recorded from the units that really run, on the meta
device.
"""

from paretopath.tracing.layer import KINDS, Kind, Layer, total_macs
from paretopath.tracing.tracer import (
    Tracer,
    UnitTrace,
    build_on_meta,
    signature,
    trace_layers,
    trace_units,
)

__all__ = [
    "KINDS",
    "Kind",
    "Layer",
    "Tracer",
    "UnitTrace",
    "build_on_meta",
    "signature",
    "total_macs",
    "trace_layers",
    "trace_units",
]
