"""Accuracy from a published predictor in place of data: a small network over a path's decisions.

Scores from here are the predictor's opinion, not measurements; they rest on no images.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Protocol, Self, runtime_checkable

import numpy as np
import numpy.typing as npt

from paretopath.errors import CheckpointError
from paretopath.paths import IndexMatrix, Value
from paretopath.tasks.task import Score, Scorer
from paretopath.weights.files import read_state

Singles = npt.NDArray[np.float32]

_ROWS = 2048  # paths at once, so that the layers' activations stay in the cache


class AccuracyPredictor:
    """A multi-layer perceptron with ReLUs and one output, plus a constant, run by NumPy.

    Args:
        layers: (weight, bias) of each linear layer, first to last: weight (outputs, inputs), bias
            (outputs,) or None. The last has one output.
        base: the accuracy that is added to the network's output.

    Raises:
        CheckpointError: shapes that don't follow from one another.
    """

    def __init__(self, layers: Sequence[tuple[Singles, Singles | None]], *, base: float) -> None:
        widths = [weight.shape for weight, _ in layers]
        chained = all(a[0] == b[1] for a, b in pairwise(widths))
        if not widths or not chained or widths[-1][0] != 1:
            raise CheckpointError(
                f"an accuracy predictor must be a chain of linear layers that ends in one output, "
                f"but the weights have shapes {widths}"
            )
        self._layers = [(np.ascontiguousarray(weight.T), bias) for weight, bias in layers]
        self.base = base

    @classmethod
    def load(cls, file: str | Path) -> Self:
        """Reads the weights of a predictor as Once-For-All publishes them.

        Args:
            file: a state dict with, in order, ``*.weight`` and ``*.bias`` of linear layers (the
                last may have no bias), and ``base_acc``.

        Raises:
            CheckpointError: a file that can't be read or is none of a predictor.
        """
        state = {name: tensor.float().numpy() for name, tensor in read_state(file).items()}
        names = [name for name in state if name.endswith(".weight")]
        if "base_acc" not in state or any(state[name].ndim != 2 for name in names):
            raise CheckpointError(
                f"{file} must hold the linear layers and the base_acc of an accuracy predictor, "
                f"but holds {', '.join(state)}"
            )
        layers = [(state[name], state.get(name[: -len("weight")] + "bias")) for name in names]
        return cls(layers, base=float(state["base_acc"].item()))

    @property
    def inputs(self) -> int:
        """How many features it takes."""
        return len(self._layers[0][0])

    def __call__(self, features: Singles) -> Singles:
        """(n_paths, inputs) -> accuracies (n_paths,), in [0, 1] where the predictor is sane."""
        result = np.empty(len(features), dtype=np.float32)
        for start in range(0, len(features), _ROWS):
            x = features[start : start + _ROWS].astype(np.float32, copy=False)
            for i, (weight, bias) in enumerate(self._layers):
                if i:
                    np.maximum(x, 0, out=x)
                x = x @ weight
                if bias is not None:
                    x += bias
            result[start : start + _ROWS] = x[:, 0]
        return result + np.float32(self.base)


@runtime_checkable
class PredictableSpace(Protocol):
    """A search space that a predictor knows."""

    def encode(self, paths: Iterable[Mapping[str, Value]]) -> IndexMatrix:
        """Paths as value indices."""
        ...

    def encode_for_predictor(self, matrix: IndexMatrix) -> Singles:
        """Value indices as the predictor's features, (n_paths, inputs)."""
        ...


class PredictorEvaluator:
    """Scores paths by a predictor: an evaluator for a search without data.

    Args:
        space: whose paths.
        predictor: of their accuracy.
    """

    def __init__(self, space: PredictableSpace, predictor: AccuracyPredictor) -> None:
        self._space = space
        self._predictor = predictor

    def __call__(self, paths: Sequence[Mapping[str, Value]]) -> list[Score]:
        """The predicted score of each canonical path: no error is known, no image was seen."""
        features = self._space.encode_for_predictor(self._space.encode(paths))
        return [Score(value, error=0.0, samples=0) for value in self._predictor(features).tolist()]

    def begin(self, paths: Sequence[Mapping[str, Value]]) -> "Predictions":
        """The predictions as an evaluation that has no images to see."""
        return Predictions(tuple(self(paths)))


@dataclass(frozen=True)
class Predictions:
    """Scores of paths that are known before any image is seen.

    Attributes:
        scores: of the paths, in order.
        scorers: none: there is nothing to resample.
    """

    scores: tuple[Score, ...]
    scorers: tuple[Scorer, ...] = ()

    def advance(self, active: Sequence[int], *, batches: int | None = None) -> int:
        """Shows no batch: there is none."""
        return 0

    def score(self, index: int) -> Score:
        """The score of a path."""
        return self.scores[index]
