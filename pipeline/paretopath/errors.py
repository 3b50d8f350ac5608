"""Every error that a user can cause, under one root, and the hint that ends its sentence."""

from collections.abc import Iterable
from difflib import get_close_matches


class ParetopathError(Exception):
    """Root of all errors that are raised on purpose; the message is one sentence for a person."""


class InvalidPathError(ParetopathError, ValueError):
    """A choice of decisions that the search space does not hold."""


class InvalidValueError(ParetopathError, ValueError):
    """An argument outside its legal values."""


class RecipeError(ParetopathError, ValueError):
    """A recipe that can't be read, with file, line and field."""


class HardwareError(ParetopathError, ValueError):
    """A hardware or mapping description that can't be read, with file and field."""


class DataError(ParetopathError, ValueError):
    """A data set that can't be read, or that does not hold what the recipe says."""


class MissingExtraError(ParetopathError, RuntimeError):
    """An optional library is not installed; the message names the extra that brings it."""


class RunDirectoryError(ParetopathError, RuntimeError):
    """A run directory that lacks or contradicts what is asked of it."""


class StorageError(ParetopathError, RuntimeError):
    """A database that can't be reached or used."""


class CheckpointError(ParetopathError, RuntimeError):
    """Weights that can't be trusted or don't fit the model."""


class UntrainedClassifier(CheckpointError, UserWarning):
    """Weights whose classifier is for other classes than the model's.

    A warning to those who go on to train the model, an error to jobs that would not.
    """


class TrainingError(ParetopathError, RuntimeError):
    """A training that can't go on: it diverged."""


class PublishError(ParetopathError, RuntimeError):
    """A report that W&B does not take."""


class LaunchError(ParetopathError, RuntimeError):
    """Jobs that a cluster does not take, or that ended without a result."""


LISTED, MANY = 12, 40
"""Choices that a sentence lists; and how many there are where it lists none."""


def nearest(got: object, legal: Iterable[object]) -> str:
    """The end of an error's sentence: the legal choices and the one that was probably meant.

    Args:
        got: what the user gave.
        legal: the choices that exist, in the order to print them.

    Returns:
        For example ``legal: vit, segformer; did you mean 'vit'?``. Of a great many, the guess
        alone: ``did you mean 'resnet18'? (1492 are legal)``.
    """
    choices = [str(choice) for choice in legal]
    close = get_close_matches(str(got), choices, n=1, cutoff=0.5)
    guess = f"did you mean {close[0]!r}?" if close else ""
    if len(choices) > MANY:
        return f"{guess} ({len(choices)} are legal)".strip()
    listed = ", ".join(choices[:LISTED])
    more = f", … ({len(choices)} in all)" if len(choices) > LISTED else ""
    return f"legal: {listed}{more}" + (f"; {guess}" if guess else "")
