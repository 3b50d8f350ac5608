"""How well cost models foretell what was measured."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from paretopath.cost.model import CostModel, Floats
from paretopath.cost.table import CostTable
from paretopath.costs import cost_named
from paretopath.elastic import ElasticSpace
from paretopath.errors import InvalidValueError
from paretopath.files import write_atomically
from paretopath.paths import Value
from paretopath.quantities import Unit, counted
from paretopath.showing.measure.measurement import Measurement
from paretopath.tracing import Tracer, build_on_meta, total_macs

if TYPE_CHECKING:
    import plotly.graph_objects as go

Quantity = Literal["latency_ms", "energy_mj"]


@dataclass(frozen=True)
class Prediction:
    """What a cost model, or a plain count, foretells of paths.

    Attributes:
        name: ``device``, ``accelerator``, ``MACs``.
        unit: of the values: ``ms``, ``mJ``; empty for a plain count.
        values: one for each path.
        absolute: whether they claim to be the device's own: whether their error means something.
    """

    name: str
    unit: Unit
    values: tuple[float, ...]
    absolute: bool = False


@dataclass(frozen=True)
class Agreement:
    """How well a prediction foretells what was measured.

    Attributes:
        name: the prediction's.
        spearman: rank correlation, in [-1, 1].
        median_error: median of |predicted / measured - 1|; None unless the prediction is absolute.
        scaled_error: the same after the one factor that suits the prediction best (the median of
            measured / predicted): how far from proportional it is.
        worst_scaled_error: the largest such error.
    """

    name: str
    spearman: float
    median_error: float | None
    scaled_error: float
    worst_scaled_error: float


@dataclass(frozen=True)
class Comparison:
    """Measured paths beside predictions.

    Attributes:
        hardware: what was measured.
        quantity: which of the measured.
        measurements: one for each path.
        predictions: each with a value for each path, in the same order.
        agreements: one for each prediction.
    """

    hardware: str
    quantity: Quantity
    measurements: tuple[Measurement, ...]
    predictions: tuple[Prediction, ...]
    agreements: tuple[Agreement, ...]

    def rows(self) -> list[dict[str, Any]]:
        """One row a path: what was measured, and each prediction by its name; plain data."""
        return [
            asdict(measurement) | {"predicted": {p.name: p.values[i] for p in self.predictions}}
            for i, measurement in enumerate(self.measurements)
        ]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "hardware": self.hardware,
            "quantity": self.quantity,
            "agreements": [asdict(agreement) for agreement in self.agreements],
            "paths": self.rows(),
        }


def predict(
    space: ElasticSpace,
    paths: Sequence[Mapping[str, Value]],
    cost_models: Mapping[str, CostModel],
    *,
    quantity: Quantity = "latency_ms",
    absolute: Sequence[str] = ("device",),
) -> list[Prediction]:
    """What cost models foretell of paths, and last their MACs.

    Args:
        space: the paths'.
        paths: canonical paths.
        cost_models: by the name to show.
        quantity: which of their costs.
        absolute: the names of those that model the very device that is measured.
    """
    predictions = []
    for name, cost_model in cost_models.items():
        costs = CostTable(space, cost_model)(paths)
        values = tuple(costs[quantity].tolist())
        unit = cost_named(quantity).unit
        predictions.append(Prediction(name, unit, values, absolute=name in absolute))
    tracer = Tracer(build_on_meta(space))
    macs = (sum(total_macs(trace.layers) for trace in tracer(path)) for path in paths)
    return [*predictions, Prediction("MACs", "", tuple(float(count) for count in macs))]


def compare(
    measurements: Sequence[Measurement],
    predictions: Sequence[Prediction],
    *,
    hardware: str,
    quantity: Quantity = "latency_ms",
) -> Comparison:
    """Sets predictions against what was measured.

    Args:
        measurements: at least two.
        predictions: each with a value for each measurement, in the same order.
        hardware: the name of what was measured.
        quantity: which of the measured.

    Raises:
        InvalidValueError: fewer than two measurements, one without the quantity, or a prediction
            that is not finite and above 0 for each of them.
    """
    measured = np.array([getattr(m, quantity) for m in measurements], dtype=np.float64)
    if len(measured) < 2 or not np.isfinite(measured).all():
        raise InvalidValueError(
            f"a comparison needs at least two paths, all with a measured {quantity}, "
            f"but got {np.isfinite(measured).sum()} of {len(measured)}"
        )
    return Comparison(
        hardware=hardware,
        quantity=quantity,
        measurements=tuple(measurements),
        predictions=tuple(predictions),
        agreements=tuple(_agreement(prediction, measured) for prediction in predictions),
    )


def rank_correlation(ours: Floats, theirs: Floats) -> float:
    """Spearman's, in [-1, 1]; NaN where one of them is constant."""
    from scipy.stats import spearmanr  # takes a second to import

    return float(spearmanr(ours, theirs).statistic)


def _agreement(prediction: Prediction, measured: Floats) -> Agreement:
    predicted = np.array(prediction.values, dtype=np.float64)
    usable = np.isfinite(predicted) & (predicted > 0)
    if predicted.shape != measured.shape or not usable.all():
        raise InvalidValueError(
            f"prediction {prediction.name!r} must hold {len(measured)} finite values above 0, "
            f"but {usable.sum()} of its {len(predicted)} are such"
        )
    ratio = predicted / measured
    scaled = np.abs(ratio / np.median(ratio) - 1)
    return Agreement(
        name=prediction.name,
        spearman=rank_correlation(predicted, measured),
        median_error=float(np.median(np.abs(ratio - 1))) if prediction.absolute else None,
        scaled_error=float(np.median(scaled)),
        worst_scaled_error=float(scaled.max()),
    )


def draw(comparison: Comparison) -> "go.Figure":
    """Measured over predicted, a panel for each prediction; the bars are interquartile ranges.

    Where a prediction claims to be the device's own, a line shows where it would be right.
    """
    from plotly.subplots import make_subplots

    titles = [f"{a.name}: Spearman {a.spearman:.3f}" for a in comparison.agreements]
    figure = make_subplots(cols=len(titles), shared_yaxes=True, subplot_titles=titles)
    measured = [getattr(m, comparison.quantity) for m in comparison.measurements]
    spreads = [m.spread_ms / 2 for m in comparison.measurements]
    noun = comparison.quantity.partition("_")[0]
    for column, prediction in enumerate(comparison.predictions, start=1):
        figure.add_scatter(
            x=prediction.values,
            y=measured,
            mode="markers",
            marker={"size": 9, "color": "#0072B2"},
            error_y={"array": spreads, "thickness": 1} if noun == "latency" else None,
            customdata=[m.path_id for m in comparison.measurements],
            hovertemplate=f"path %{{customdata}}<br>predicted %{{x:.4g}} {prediction.unit}<br>"
            f"measured %{{y:.4g}} {cost_named(comparison.quantity).unit}<extra></extra>",
            row=1,
            col=column,
        )
        if prediction.absolute:
            ends = [0, max(*prediction.values, *measured) * 1.05]
            line = {"color": "#8C8C8C", "dash": "dot"}
            figure.add_scatter(
                x=ends, y=ends, mode="lines", line=line, hoverinfo="skip", row=1, col=column
            )
        unit = prediction.unit or prediction.name
        figure.update_xaxes(title=f"predicted [{unit}]", rangemode="tozero", row=1, col=column)
    figure.update_yaxes(rangemode="tozero")
    figure.update_yaxes(
        title=f"measured {noun} [{cost_named(comparison.quantity).unit}]", row=1, col=1
    )
    figure.update_layout(
        title=f"{counted(len(measured), 'path')} on {comparison.hardware}",
        template="plotly_white",
        showlegend=False,
        height=460,
        font={"family": "system-ui, sans-serif", "size": 13},
        margin={"l": 70, "r": 20, "t": 100, "b": 60},
    )
    return figure


def write_html(file: str | os.PathLike[str], comparison: Comparison) -> None:
    """Draws a comparison into one file that holds everything, plotly.js included (about 5 MB)."""
    figure = draw(comparison)
    write_atomically(file, figure.to_html(config={"displaylogo": False, "responsive": True}))
