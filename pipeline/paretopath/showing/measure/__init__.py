"""Whole paths measured on a device, and how well cost models foretell them.

:mod:`~paretopath.showing.measure.measurement` runs paths and times them,
:mod:`~paretopath.showing.measure.comparison` sets predictions against the result,
:mod:`~paretopath.showing.measure.record` keeps it in a run directory.
"""

from paretopath.showing.measure.comparison import (
    Agreement,
    Comparison,
    Prediction,
    compare,
    draw,
    predict,
    rank_correlation,
    write_html,
)
from paretopath.showing.measure.measurement import Measurement, measure_paths
from paretopath.showing.measure.record import load_measured, save_measurements

__all__ = [
    "Agreement",
    "Comparison",
    "Measurement",
    "Prediction",
    "compare",
    "draw",
    "load_measured",
    "measure_paths",
    "predict",
    "rank_correlation",
    "save_measurements",
    "write_html",
]
