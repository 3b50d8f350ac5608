"""The base weights of a run: loaded or trained, then calibrated for narrow paths."""

import shutil
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from paretopath.calibration.moments import calibrate, draw
from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.exits import exit_paths
from paretopath.jobs.epochs import report_epochs
from paretopath.jobs.reuse import MADE_FROM, made_from, take_weights
from paretopath.progress import PhaseListener, unheard
from paretopath.recipe import Recipe
from paretopath.run import Parts, Run, Scoring, assemble
from paretopath.search.storage import exclusive
from paretopath.tasks.registry import create_task
from paretopath.training.epoch import EpochListener
from paretopath.weights.files import write_state
from paretopath.weights.foreign import classifiers_loaded


def prepare_weights(
    run: Run,
    parts: Parts | None = None,
    *,
    on_epoch: EpochListener | None = None,
    on_phase: PhaseListener = unheard,
    on_taken: Callable[[Path], None] | None = None,
) -> None:
    """Makes the elastic weights of a run, unless it has them: loaded, or trained; then channels
    are put in order and layers compensated, as the recipe's calibration says.

    A run whose accuracies are predicted needs none. Training runs the full path and, where there
    are exits, the fullest path to each of them.

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
    from paretopath.training.retrain import SharedTraining
    from paretopath.training.trainer import fit

    scoring = parts.images
    settings = run.recipe.train
    model = initial_model(parts.space, run.recipe) if parts.base is None else parts.base
    if run.recipe.weights is None:
        task = create_task(run.recipe.task, training=settings)
        paths = exit_paths(model)
        every_path = settings.model_copy(update={"paths_per_step": len(paths)})
        module = SharedTraining(model, paths, every_path, task, distil=False)
        report = report_epochs(scoring, model, [parts.space.full], on_epoch)
        fit(
            module,
            scoring.data.loader("train", shuffle_seed=settings.seed),
            checkpoint_dir=run.training_dir,
            report=report,
        )
    for part in model.to(run.device).eval().parts():
        calibrate_model(part, scoring, run.recipe, on_phase=on_phase)
    about = {MADE_FROM: fingerprint} if fingerprint is not None else {}
    write_state(run.weights_file, model.state_dict(), about)
    shutil.rmtree(run.training_dir, ignore_errors=True)


def initial_model(space: ElasticSpace, recipe: Recipe) -> ElasticModel:
    """The model before training and calibration: with a recipe's weights, or random ones."""
    torch.manual_seed(recipe.train.seed)
    with classifiers_loaded():
        return space.build(recipe.weights)


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
