"""Racing: candidates see growing shares of the images, and those that are beaten stop early.

After each share of the images, in one fixed random order, a candidate stops if a path that costs no
more is ahead of it by more than chance explains. Both have seen the same images, so what counts is
the error of their *difference*, which is far smaller than that of either accuracy: images that are
hard are hard for both. It comes from a paired bootstrap (Efron, "Bootstrap methods", Annals of
Statistics 7(1), 1979): the same resamples of images for all paths. The statistics of racing go back
to Maron and Moore, "Hoeffding races" (NIPS 1993); here a path is beaten in two objectives, one of
which is exact.

Who stops gets the accuracy that it would have had on all images, as far as that can be told: the
full accuracy of the finished path that is most like it, plus their difference on the images that
both have seen (the difference estimator: Cochran, "Sampling Techniques", 1977, section 7.3).
"""

import io
import math
from collections.abc import Callable, Mapping, Sequence, Sized
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import stdtrit

from paretopath.evaluation.source import BatchedSource, Outcome, PartialEvaluation
from paretopath.files import write_atomically
from paretopath.paths import ExecutionPath
from paretopath.recipe import Racing
from paretopath.tasks.resampling import RESAMPLES, draw_resamples
from paretopath.tasks.task import ResamplingScorer, Score, Stopped

Floats = npt.NDArray[np.float64]

FEWEST = 8
"""Images before anyone stops: a bootstrap over fewer says little about their spread."""


@dataclass(frozen=True)
class Lap:
    """What a path came to on the first images.

    Attributes:
        images: how many.
        value: its accuracy on them.
        replicates: (RESAMPLES,) its accuracies on resamples of them, the same for all paths.
    """

    images: int
    value: float
    replicates: Floats

    def ahead_of(self, other: "Lap", share: float) -> tuple[float, float]:
        """How far it is ahead of another lap on the same images, and the error of that.

        The error is that of the difference on *all* images, of which these are a share (finite
        population: Cochran, "Sampling Techniques", 1977, eq. 2.13).
        """
        spread = float(np.std(self.replicates - other.replicates, ddof=1))
        correction = self.images / max(self.images - 1, 1) * (1 - share)
        return self.value - other.value, spread * math.sqrt(correction)


@dataclass(frozen=True)
class Finisher:
    """A path that saw all images.

    Attributes:
        cost: its cost.
        score: on all images.
        laps: by images seen.
    """

    cost: float
    score: Score
    laps: Mapping[int, Lap]

    def dump(self) -> bytes:
        """The same as bytes, some kilobytes."""
        laps = list(self.laps.values())
        stream = io.BytesIO()
        np.savez(
            stream,
            score=[self.cost, self.score.value, self.score.error, self.score.samples],
            images=[lap.images for lap in laps],
            values=[lap.value for lap in laps],
            replicates=np.array([lap.replicates for lap in laps]).reshape(len(laps), RESAMPLES),
        )
        return stream.getvalue()

    @classmethod
    def load(cls, content: bytes) -> "Finisher":
        """What :meth:`dump` wrote."""
        with np.load(io.BytesIO(content), allow_pickle=False) as found:
            cost, value, error, samples = found["score"].tolist()
            images, values = found["images"].tolist(), found["values"].tolist()
            rows = zip(images, values, found["replicates"], strict=True)
            laps = {count: Lap(count, value, replicates) for count, value, replicates in rows}
        return cls(cost, Score(value, error, int(samples)), laps)


class Finishers:
    """The paths that candidates race against: finished, and not beaten themselves.

    Args:
        folder: keeps them for a search that goes on later; None for memory alone.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder
        self._known: dict[str, Finisher] = {}

    def read(self) -> dict[str, Finisher]:
        """All of them by path id, those that others have added to the folder included."""
        files = sorted(self._folder.glob("*.npz")) if self._folder else []
        for file in files:
            if file.stem not in self._known:
                self._known[file.stem] = Finisher.load(file.read_bytes())
        found = self._known.items()
        return {key: one for key, one in found if not self._is_beaten(one)}

    def add(self, path_id: str, finisher: Finisher) -> None:
        """Takes a path that has finished."""
        if not self._is_beaten(finisher):
            self._known[path_id] = finisher
            if self._folder:
                write_atomically(self._folder / f"{path_id}.npz", finisher.dump())

    def _is_beaten(self, one: Finisher) -> bool:
        """Whether another is at least as accurate for less, or more accurate for no more."""
        mine = (-one.score.value, one.cost)
        return any(
            other.cost <= one.cost
            and other.score.value >= one.score.value
            and (-other.score.value, other.cost) != mine
            for other in self._known.values()
        )


class Racer:
    """Scores paths as :class:`~paretopath.evaluation.evaluator.Evaluator` does, but stops those
    that are beaten.

    The outcomes of one call are known when its race is over. A call that is interrupted and made
    again comes to the same.

    Args:
        evaluator: its batches must have a length, its images an order without meaning, and its
            task's scorers :meth:`~paretopath.tasks.task.ResamplingScorer.resampled`; without,
            nobody stops.
        cost_of: the costs (n,) of paths: what racing compares at.
        racing: when candidates are compared; shares are rounded up to whole batches.
        seed: of the resamples.
        spared: paths that never stop: the baseline.
        folder: where finished paths are kept for a search that is resumed.
    """

    def __init__(
        self,
        evaluator: BatchedSource,
        cost_of: Callable[[Sequence[ExecutionPath]], Floats],
        *,
        racing: Racing,
        seed: int = 0,
        spared: Sequence[ExecutionPath] = (),
        folder: Path | None = None,
    ) -> None:
        self.evaluator = evaluator
        self.racing = racing
        self._seed = seed
        self._cost_of = cost_of
        self._spared = frozenset(spared)
        self._finishers = Finishers(folder)
        self._draws: dict[int, Floats] = {}

    def __call__(self, paths: Sequence[ExecutionPath]) -> list[Outcome]:
        """What each canonical path came to, in order: a score, a stop, or why it failed."""
        race = Race(self, paths, self._cost_of(paths), self._finishers.read())
        for shown, share in self._stops():
            race.run(shown, share)
        outcomes = race.finish()
        for path, outcome, laps in zip(paths, outcomes, race.laps, strict=True):
            if isinstance(outcome, Score):
                cost = float(self._cost_of([path])[0])
                self._finishers.add(path.id, Finisher(cost, outcome, laps))
        return outcomes

    def begin(self, paths: Sequence[ExecutionPath]) -> PartialEvaluation:
        """An evaluation of these paths in which nobody is stopped."""
        return self.evaluator.begin(paths)

    def _stops(self) -> list[tuple[int, float]]:
        """After which batch candidates are compared, and the share of all that it is."""
        if not isinstance(self.evaluator.task.scorer(), ResamplingScorer):
            return []
        batches = self.evaluator.batches
        total = len(batches) if isinstance(batches, Sized) else 0
        stops = {math.ceil(share * total): None for share in self.racing.shares}
        return [(stop, stop / total) for stop in stops if 0 < stop < total]

    def spares(self, path: ExecutionPath) -> bool:
        """Whether a path never stops."""
        return path in self._spared

    def draws(self, images: int) -> Floats:
        """(RESAMPLES, images) how often each resample holds each image; the same for all paths."""
        if images not in self._draws:
            self._draws[images] = draw_resamples(images, seed=[self._seed, images])
        return self._draws[images]


class Race:
    """The candidates of one call on their way through the images.

    Args:
        racer: whose.
        paths: the candidates.
        costs: (n,) of them.
        rivals: finished paths by id.

    Attributes:
        laps: for each candidate, by images seen.
    """

    def __init__(
        self,
        racer: Racer,
        paths: Sequence[ExecutionPath],
        costs: Floats,
        rivals: Mapping[str, Finisher],
    ) -> None:
        self._racer, self._paths, self._costs, self._rivals = racer, paths, costs, rivals
        self._evaluation: PartialEvaluation = racer.evaluator.begin(paths)
        self._active = list(range(len(paths)))
        self._failed: dict[int, Exception] = {}
        self._stopped: dict[int, tuple[Lap, float, str]] = {}  # last lap, its share, who was ahead
        self._shown = 0
        self.laps: list[dict[int, Lap]] = [{} for _ in paths]

    def run(self, until: int, share: float) -> None:
        """Shows the batches up to number ``until`` and stops who is beaten."""
        self._shown += self._evaluation.advance(self._active, batches=until - self._shown)
        current = {index: lap for index in self._active if (lap := self._lap(index)) is not None}
        for index, lap in current.items():
            self.laps[index][lap.images] = lap
        for index, lap in current.items():
            ahead = self._ahead(index, lap, current, share)
            if ahead is not None:
                self._stopped[index] = (lap, share, ahead)
        self._active = [index for index in current if index not in self._stopped]

    def finish(self) -> list[Outcome]:
        """Shows the rest, and says what each candidate came to."""
        self._evaluation.advance(self._active)
        outcomes: dict[int, Outcome] = dict(self._failed)
        references = list(self._rivals.values())
        for index in self._active:
            outcomes[index] = score = self._evaluation.score(index)
            if isinstance(score, Score):
                references.append(Finisher(float(self._costs[index]), score, self.laps[index]))
        for index, (lap, share, ahead) in self._stopped.items():
            outcomes[index] = Stopped(estimated(lap, share, references), beaten_by=ahead)
        return [outcomes[index] for index in range(len(self._paths))]

    def _lap(self, index: int) -> Lap | None:
        """A candidate's lap; None if it failed."""
        score = self._evaluation.score(index)
        if not isinstance(score, Score):
            self._failed[index] = score
            return None
        scorer = self._evaluation.scorers[index]
        assert isinstance(scorer, ResamplingScorer)
        replicates = scorer.resampled(self._racer.draws(score.samples))
        return Lap(score.samples, score.value, replicates)

    def _ahead(self, index: int, lap: Lap, current: Mapping[int, Lap], share: float) -> str | None:
        """The id of the path by which a candidate is beaten most clearly; None if by none."""
        path, cost = self._paths[index], float(self._costs[index])
        if self._racer.spares(path) or lap.images < FEWEST:
            return None
        others = {
            self._paths[i].id: other
            for i, other in current.items()
            if i != index and self._costs[i] <= cost
        }
        for key, rival in self._rivals.items():
            if key != path.id and rival.cost <= cost and lap.images in rival.laps:
                others[key] = rival.laps[lap.images]
        needed = float(stdtrit(lap.images - 1, self._racer.racing.confidence))
        best: tuple[float, str] | None = None
        for key, other in others.items():
            lead, error = other.ahead_of(lap, share)
            clearly = lead - needed * error
            if clearly > 0 and (best is None or clearly > best[0]):
                best = (clearly, key)
        return None if best is None else best[1]


def estimated(lap: Lap, share: float, references: Sequence[Finisher]) -> Score:
    """The accuracy that a stopped path would have on all images, with its error.

    Args:
        lap: its last one.
        share: of the images that it saw.
        references: finished paths; the one with the most similar lap is taken.

    Returns:
        The difference estimate; without a reference, the lap's own value and error.
    """
    best: tuple[float, float, Finisher] | None = None
    for reference in references:
        if lap.images in reference.laps:
            lead, error = lap.ahead_of(reference.laps[lap.images], share)
            if best is None or error < best[1]:
                best = (lead, error, reference)
    if best is None:
        return Score(lap.value, float(np.std(lap.replicates, ddof=1)), lap.images)
    lead, error, reference = best
    value = min(max(reference.score.value + lead, 0.0), 1.0)
    return Score(value, math.hypot(reference.score.error, error), lap.images)
