"""What jobs call to be tracked. No call waits or raises: what fails is said once, as a warning."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

from paretopath.evaluation.sensitivity import Sensitivity
from paretopath.front import Front, TrialRecord
from paretopath.showing.breakdown import Measured, Row
from paretopath.showing.report import UnitCost
from paretopath.showing.tracking.messages import Objective, RunKind


class Tracker(Protocol):
    """One run as W&B shows it: a search, or the retraining of one path."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Adds a row to the history.

        Args:
            values: by name; numbers that are not finite are left out.
            step: rising; one that was logged before, by a job that this one resumes, is passed
                over.
        """
        ...

    def trials(self, records: Sequence[TrialRecord], *, known: bool = False) -> None:
        """Adds finished trials of a search, each as a point of the history, in the given order.

        Args:
            records: the trials.
            known: they finished before a resumption and were logged then; hypervolume and best
                accuracy count them.
        """
        ...

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Sets values of the summary, such as the accuracies before and after retraining."""
        ...

    def show(
        self,
        front: Front,
        trials: Sequence[TrialRecord],
        *,
        unit_costs: Mapping[str, Sequence[UnitCost]] | None = None,
        kind_costs: Mapping[str, Sequence[Row]] | None = None,
        sensitivity: Sensitivity | None = None,
        pictures: Mapping[str, Any] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Shows a front: tables of trials and points, charts, and an artifact.

        Args:
            front: the front.
            trials: of its search.
            unit_costs: of some of its paths, by their id.
            kind_costs: what kinds of operators take in some of them: these paths' costs are drawn,
                by kind and by unit.
            sensitivity: what each decision alone does, if that was measured.
            pictures: some images with what the paths find in them, as ``pictures.json`` has them.
            files: for the artifact: front.json, the recipe …
        """
        ...

    def show_outcome(
        self,
        front: Front,
        *,
        measured: Mapping[str, Measured],
        pictures: Mapping[str, Any] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Shows every path before and after retraining on one front, with what was measured.

        Args:
            front: with the accuracies after retraining.
            measured: what a device took, by path id; empty if nothing was measured.
            pictures: images that leave a path first and last, as ``pictures.json`` has them.
            files: for the artifact.
        """
        ...

    def finish(self, *, failed: bool = False) -> None:
        """Ends the run. Nothing may follow."""
        ...


class Tracking(Protocol):
    """All runs of one job: a context that ends them."""

    @property
    def notes(self) -> Sequence[str]:
        """What there is to tell the user so far: where the runs are, how to upload them."""
        ...

    def start(
        self,
        kind: RunKind,
        name: str,
        *,
        config: Mapping[str, Any],
        objective: Objective | None = None,
    ) -> Tracker:
        """Begins a run, or goes on with the one of that name in the run directory.

        Args:
            kind: W&B's job type.
            name: unique in the run directory: ``search``, ``separate-3f2a…``.
            config: plain values: the recipe; for a retraining also the path's decisions.
            objective: of a search.
        """
        ...

    def close(self, *, failed: bool = False) -> None:
        """Ends what has not ended, and waits a little for W&B to be done."""
        ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


class NullTracker:
    """Tracks nothing."""

    def log(self, values: Mapping[str, float], *, step: int) -> None:
        """Does nothing, like the rest."""

    def trials(self, records: Sequence[TrialRecord], *, known: bool = False) -> None:
        """Does nothing."""

    def summarize(self, values: Mapping[str, Any]) -> None:
        """Does nothing."""

    def show(
        self,
        front: Front,
        trials: Sequence[TrialRecord],
        *,
        unit_costs: Mapping[str, Sequence[UnitCost]] | None = None,
        kind_costs: Mapping[str, Sequence[Row]] | None = None,
        sensitivity: Sensitivity | None = None,
        pictures: Mapping[str, Any] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Does nothing."""

    def show_outcome(
        self,
        front: Front,
        *,
        measured: Mapping[str, Measured],
        pictures: Mapping[str, Any] | None = None,
        files: Sequence[Path] = (),
    ) -> None:
        """Does nothing."""

    def finish(self, *, failed: bool = False) -> None:
        """Does nothing."""


class NullTracking:
    """Tracks nothing."""

    notes: Sequence[str] = ()

    def start(
        self,
        kind: RunKind,
        name: str,
        *,
        config: Mapping[str, Any],
        objective: Objective | None = None,
    ) -> NullTracker:
        """A tracker that tracks nothing."""
        return NullTracker()

    def close(self, *, failed: bool = False) -> None:
        """Does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        pass
