"""Who leaves where: many policies at once, from what each exit said of each image.

Whether image i would leave at exit e at its k-th threshold is one bit. A policy names a k for each
exit; it is worked out for 64 images at a time: who still waits and is sure leaves, the rest go on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

from paretopath.errors import InvalidValueError

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]
Bools = npt.NDArray[np.bool_]
Words = npt.NDArray[np.uint64]

_CHUNK_WORDS = 1 << 17  # a megabyte of bits at once: what a core's cache holds


FOLDS = 5
"""Parts of the images that are counted apart, so that policies can be chosen by the others."""

_SEED = 0  # of the draw of the parts


@dataclass(frozen=True)
class Left:
    """What policies came to on labelled images, as counts.

    Attributes:
        asked: (policies, exits) whether the exit is asked.
        left: (policies, exits) images that left there.
        lost: (policies, folds) images that the reference answers rightly and the policy does not.
        won: (policies, folds) those that the policy alone answers rightly.
        images: (folds,) in all.
    """

    asked: Bools
    left: Ints
    lost: Ints
    won: Ints
    images: Ints

    def __len__(self) -> int:
        return len(self.left)

    def __getitem__(self, rows: Ints | Bools | slice) -> "Left":
        """Some of the policies."""
        return Left(self.asked[rows], self.left[rows], self.lost[rows], self.won[rows], self.images)

    @classmethod
    def together(cls, parts: Sequence["Left"]) -> Self:
        """Several sets of policies, on the same images."""
        return cls(
            asked=np.concatenate([part.asked for part in parts]),
            left=np.concatenate([part.left for part in parts]),
            lost=np.concatenate([part.lost for part in parts]),
            won=np.concatenate([part.won for part in parts]),
            images=parts[0].images,
        )

    @property
    def shares(self) -> Floats:
        """(policies, exits) of the images that leave at each exit; rows sum to 1."""
        return np.asarray(self.left / self.images.sum(), dtype=np.float64)

    @property
    def loss(self) -> Floats:
        """(policies,) accuracy less than the reference's, on the same images."""
        return loss_of(self.lost.sum(axis=1), self.won.sum(axis=1), int(self.images.sum()))[0]

    @property
    def loss_error(self) -> Floats:
        """(policies,) the standard error of :attr:`loss`, which is paired."""
        return loss_of(self.lost.sum(axis=1), self.won.sum(axis=1), int(self.images.sum()))[1]


def loss_of(lost: Ints, won: Ints, images: int) -> tuple[Floats, Floats]:
    """How much less often one answers rightly than another on the same images, and its standard
    error.

    For the error half an image is added to each cell of the table of both answers, so that it stays
    honest where they never differ (Agresti and Min, "Simple improved confidence intervals for
    comparing matched proportions", Statistics in Medicine 24, 2005).

    Args:
        lost: images that the other alone answers rightly.
        won: images that it alone answers rightly.
        images: in all.
    """
    n = images + 2.0
    variance = (lost + won + 1.0) / n - ((lost - won) / n) ** 2
    error: Floats = np.sqrt(variance / n)
    return (lost - won) / images, error


class Leaving:
    """Works policies out on labelled images.

    Args:
        confidences: (exits, images), in the order in which they are asked; the last exit's are not
            read, since whoever comes there leaves.
        right: (exits, images) whether each answers rightly.
        reference: (images,) what losses are against.
        thresholds: (exits, values) that a policy may choose from: an image leaves where its
            confidence reaches the threshold; the last exit's are not read.

    Attributes:
        never: the choice of an exit that is not asked.

    Raises:
        InvalidValueError: shapes that don't go together.
    """

    def __init__(
        self,
        confidences: npt.NDArray[np.floating],
        right: Bools,
        reference: Bools,
        thresholds: Floats,
    ) -> None:
        exits, images = right.shape
        if confidences.shape != right.shape or reference.shape != (images,) or images == 0:
            raise InvalidValueError(
                f"confidences, right and reference must be (exits, images) twice and (images,) of "
                f"at least one image, but got {confidences.shape}, {right.shape} and "
                f"{reference.shape}"
            )
        if thresholds.ndim != 2 or len(thresholds) != exits:
            raise InvalidValueError(
                f"thresholds must be (exits, values) for {exits} exits, but got {thresholds.shape}"
            )
        self.never = thresholds.shape[1]
        order = np.random.default_rng(_SEED).permutation(images)
        self._folds = [order[fold::FOLDS] for fold in range(FOLDS)]
        sure = np.zeros((exits, self.never + 1, images), dtype=np.bool_)
        sure[:, :-1] = confidences[:, None] >= thresholds[:, :, None]
        sure[-1] = True
        self._sure = self._packed(sure)  # (exits, values + 1, folds * words)
        self._lost = self._packed(reference & ~right)
        self._won = self._packed(right & ~reference)
        self._everyone = self._packed(np.ones(images, dtype=np.bool_))

    def __call__(self, choices: Ints) -> Left:
        """What policies come to.

        Args:
            choices: (policies, exits) indices of thresholds; :attr:`never` where the exit is not
                asked. The last column is not read.

        Raises:
            InvalidValueError: an index that there is not.
        """
        exits = len(self._lost)
        if choices.ndim != 2 or choices.shape[1] != exits:
            raise InvalidValueError(f"choices must be (policies, {exits}), but got {choices.shape}")
        if choices.size and not (0 <= choices.min() and choices.max() <= self.never):
            raise InvalidValueError(
                f"choices must lie in [0, {self.never}], but lie in "
                f"[{choices.min()}, {choices.max()}]"
            )
        asked = choices < self.never
        asked[:, -1] = True
        images = np.array([len(fold) for fold in self._folds])
        left = np.zeros(choices.shape, dtype=np.int64)
        lost, won = np.zeros((2, len(choices), FOLDS), dtype=np.int64)
        found = Left(asked, left, lost, won, images)
        step = max(1, _CHUNK_WORDS // len(self._everyone))
        for start in range(0, len(choices), step):
            rows = slice(start, start + step)
            self._run(choices[rows], found[rows])
        return found

    def _run(self, choices: Ints, found: Left) -> None:
        """Fills in the counts of some policies."""
        waiting = np.repeat(self._everyone[None], len(choices), axis=0)  # (policies, words)
        lost, won = np.zeros_like(waiting), np.zeros_like(waiting)
        for e, sure in enumerate(self._sure):
            who = np.flatnonzero(found.asked[:, e])
            leave = waiting[who] & sure.take(choices[who, e], axis=0)
            waiting[who] ^= leave
            found.left[who, e] = np.bitwise_count(leave).sum(axis=1, dtype=np.int64)
            lost[who] |= leave & self._lost[e]
            won[who] |= leave & self._won[e]
        for counts, words in ((found.lost, lost), (found.won, won)):
            by_fold = np.bitwise_count(words).reshape(len(words), FOLDS, -1)
            counts[:] = by_fold.sum(axis=2, dtype=np.int64)

    def _packed(self, bits: Bools) -> Words:
        """(…, images) truths as (…, folds * words): each fold on words of its own, all alike many;
        bits beyond a fold's images are false.
        """
        width = -(-len(self._folds[0]) // 64) * 64
        padded = np.zeros((*bits.shape[:-1], FOLDS, width), dtype=np.bool_)
        for fold, members in enumerate(self._folds):
            padded[..., fold, : len(members)] = bits[..., members]
        eights = np.packbits(padded, axis=-1, bitorder="little")
        return np.ascontiguousarray(eights).view(np.uint64).reshape(*bits.shape[:-1], -1)
