"""The base weights of a run: loaded or trained, then calibrated for narrow paths."""

import logging
import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from paretopath.calibration.moments import calibrate, draw
from paretopath.elastic import ElasticModel
from paretopath.jobs.base import Learning, initial_model, train_base
from paretopath.jobs.reuse import MADE_FROM, made_from, take_weights
from paretopath.progress import PhaseListener, unheard
from paretopath.recipe import Recipe
from paretopath.run import Parts, Run, Scoring, assemble
from paretopath.search.storage import exclusive
from paretopath.tasks.registry import create_task
from paretopath.training.epoch import EpochListener
from paretopath.weights.files import write_state

_log = logging.getLogger(__name__)


def prepare_weights(
    run: Run,
    parts: Parts | None = None,
    *,
    on_epoch: EpochListener | None = None,
    on_phase: PhaseListener = unheard,
    on_taken: Callable[[Path], None] | None = None,
) -> None:
    """Makes the elastic weights of a run, unless it has them: loaded, and what they lack trained
    (see :mod:`~paretopath.jobs.base`); then channels are put in order and layers compensated, as
    the recipe's calibration says.

    A run whose accuracies are predicted needs none.

    Args:
        run: gets its weights file.
        parts: what its recipe describes; built if None.
        on_epoch: hears how training goes.
        on_phase: hears how calibration goes.
        on_taken: told whose weights are taken, where a run beside this one has the same.

    Raises:
        RunDirectoryError: another process makes them, or searches them.
    """
    if run.weights_file.is_file() or run.recipe.accuracy.source == "predictor":
        return
    with exclusive(run.directory):
        fingerprint = made_from(run)
        taken = take_weights(run, fingerprint) if fingerprint is not None else None
        if taken is None:
            parts = parts or assemble(run, on_phase=on_phase)
            _make_weights(run, parts, fingerprint, on_epoch, on_phase)
        elif on_taken is not None:
            on_taken(taken)


def _make_weights(
    run: Run,
    parts: Parts,
    fingerprint: str | None,
    on_epoch: EpochListener | None,
    on_phase: PhaseListener,
) -> None:
    scoring = parts.images
    model = initial_model(parts.space, run.recipe) if parts.base is None else parts.base
    learning = Learning.of(model, run.recipe)
    if learning.says:
        _log.warning(learning.says)
    if learning.parameters:
        train_base(run, model, scoring, learning, on_epoch=on_epoch, on_phase=on_phase)
    for part in model.to(run.device).eval().parts():
        calibrate_model(part, scoring, run.recipe, on_phase=on_phase)
    about = {MADE_FROM: fingerprint} if fingerprint is not None else {}
    write_state(run.weights_file, model.state_dict(), about)
    shutil.rmtree(run.training_dir, ignore_errors=True)


def calibrate_model(
    model: ElasticModel, scoring: Scoring, recipe: Recipe, *, on_phase: PhaseListener = unheard
) -> None:
    """Orders channels and re-solves weights for narrow paths, as a recipe says.

    Args:
        model: changed in place, on the device of the scoring; its full path keeps its function.
        scoring: has the images.
        recipe: has the settings.
        on_phase: hears how far it is.
    """
    from paretopath.calibration.importance import sort_by_magnitude, sort_by_taylor

    settings = recipe.calibration
    torch.manual_seed(settings.seed)  # of random transforms
    looked_at = partial(on_phase, "looking at calibration images")
    if settings.order == "taylor":
        task = create_task(recipe.task, training=recipe.train)
        loader = scoring.data.loader("train", shuffle_seed=settings.seed)
        sort_by_taylor(model, draw(loader, settings.images, looked_at), task.loss)
    else:  # least squares moves only what a layer is known to read
        sort_by_magnitude(model)
    reorder = settings.order == "least_squares"
    if reorder or settings.compensate:
        loader = scoring.data.loader("calibration", shuffle_seed=settings.seed)
        calibrate(
            model,
            draw(loader, settings.images, looked_at),
            reorder=reorder,
            solve=settings.compensate,
            positions=settings.positions,
            ridge=settings.ridge,
            seed=settings.seed,
            progress=partial(on_phase, "calibrating units"),
        )
