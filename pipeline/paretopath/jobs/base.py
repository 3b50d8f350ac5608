"""The base model before its calibration: weights that are given, and training of the rest."""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Self

import torch

from paretopath.elastic import ElasticModel, ElasticSpace
from paretopath.elastic.exits import exit_paths
from paretopath.errors import CheckpointError, UntrainedClassifier
from paretopath.jobs.epochs import report_epochs
from paretopath.progress import PhaseListener, unheard
from paretopath.quantities import counted
from paretopath.recipe import Recipe
from paretopath.run import Run, Scoring
from paretopath.tasks.registry import create_task
from paretopath.training.epoch import EpochListener
from paretopath.weights.files import is_elastic, load_into
from paretopath.weights.new import COPIED_EXITS, mark_new, new_parameters, plain_name, unmark

_NAMED = 4  # tensors that a sentence names


@dataclass(frozen=True)
class Learning:
    """What of a base model is trained before its search.

    Attributes:
        parameters: their names; none if the weights that are given stay as they are.
        new: those that the given weights lack, each with why.
        is_whole: whether all of the model is trained.
        says: one line for people, where given weights don't stay as they are; empty elsewhere.
    """

    parameters: tuple[str, ...]
    new: Mapping[str, str]
    is_whole: bool
    says: str

    @classmethod
    def of(cls, model: ElasticModel, recipe: Recipe) -> Self:
        """As a recipe says it.

        Args:
            model: with the recipe's weights, from :func:`initial_model`.
            recipe: names the weights, and the parameters to train where some are given.
        """
        everything = tuple(name for name, _ in model.named_parameters())
        if recipe.weights is None:
            return cls(everything, {}, True, "")
        new, settings = new_parameters(model), recipe.train
        is_whole = settings.parameters == "all"
        if not new and not is_whole:
            return cls((), {}, False, "")
        how = counted(settings.epochs, "epoch")
        says = f"train.parameters is all: everything is trained first, {how}"
        if new:
            rest = "with everything else" if is_whole else "on the frozen rest"
            says = f"{_lacking(new)} trained first, {how} {rest} (train.parameters)"
            if recipe.exits.fit == "closed_form":
                says = f"{_lacking(new)} solved first, by least squares (exits.fit)"
        return cls(everything if is_whole else tuple(new), new, is_whole, says)


def _lacking(new: Mapping[str, str]) -> str:
    """Why tensors are new, and which."""
    reasons = " and ".join(dict.fromkeys(new.values()))
    names = [plain_name(name) for name in new]
    more = f" and {len(names) - _NAMED} more tensors" if len(names) > _NAMED else ""
    return f"the weights have {reasons}: {', '.join(names[:_NAMED])}{more} are"


def initial_model(space: ElasticSpace, recipe: Recipe) -> ElasticModel:
    """The model before training and calibration: with a recipe's weights, or random ones.

    Raises:
        CheckpointError: the weights don't fit, or are not finite; or they lack something that would
            not be trained: the recipe says so, or no path that is trained runs it.
    """
    torch.manual_seed(recipe.train.seed)
    if isinstance(recipe.weights, str) and is_elastic(recipe.weights):  # of another run
        model = space.build()
        load_into(model, recipe.weights)
        return model
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UntrainedClassifier)
        model = space.build(recipe.weights)
    if recipe.weights is not None:
        _require_finite(model, recipe.weights)
    told = [w for w in caught if issubclass(w.category, UntrainedClassifier)]
    for other in caught:
        if other not in told:
            warnings.warn_explicit(other.message, other.category, other.filename, other.lineno)
    _begin_exits(model, recipe)
    new = new_parameters(model)
    if told and not new:  # a family that does not keep the marks
        raise CheckpointError(str(told[0].message))
    if new and recipe.train.parameters == "none":
        raise CheckpointError(
            f"{_lacking(new)} not trained, since train.parameters is none; legal: new, all"
        )
    steps = {step.unit for path in exit_paths(model) for step in model.steps(path)}
    run = {f"units.{key}" for key, unit in model.units.items() if unit in steps}
    missed = {n: why for n, why in new.items() if ".".join(n.split(".")[:2]) not in run}
    if missed:
        raise CheckpointError(
            f"{_lacking(missed)} not trained, since neither the full path nor the fullest to an "
            f"exit runs them"
        )
    return model


def _require_finite(model: ElasticModel, weights: object) -> None:
    for name, tensor in model.state_dict().items():
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(
                f"weights must be finite, but {weights} has others in {plain_name(name)}"
                f": their training diverged, or the file was damaged"
            )


def _begin_exits(model: ElasticModel, recipe: Recipe) -> None:
    """Exits that are copies of the last one, as the recipe wants them to begin.

    Raises:
        CheckpointError: they shall stay copies, but the last classifier is new itself.
    """
    wanted = recipe.exits.weights
    if recipe.weights is None or wanted == "fine_tune":
        return
    copies = unmark(model, COPIED_EXITS)
    if wanted == "scratch":
        for module in copies:
            reset: Callable[[], None] = getattr(module, "reset_parameters", lambda: None)
            reset()
            mark_new(module, COPIED_EXITS, [name for name, _ in module.named_parameters()])
    elif copies and (new := new_parameters(model)):
        raise CheckpointError(
            f"exits.weights is same, so exits stay copies of the last classifier, but "
            f"{_lacking(new)} new; legal: fine_tune, scratch"
        )


def train_base(
    run: Run,
    model: ElasticModel,
    scoring: Scoring,
    learning: Learning,
    *,
    on_epoch: EpochListener | None = None,
    on_phase: PhaseListener = unheard,
) -> None:
    """Trains what of a base model is to be trained, and goes on from a checkpoint if there is one.

    The full path is trained and, where there are exits, the fullest path to each of them; of new
    parts alone, those of these paths that run some.

    Args:
        run: its recipe's section ``train`` says how; keeps checkpoints.
        model: changed in place.
        scoring: has the images.
        learning: what is trained.
        on_epoch: hears how it goes.
        on_phase: hears of the features of a frozen model.
    """
    from paretopath.training.new_parts import NewPartsTraining, keep_features
    from paretopath.training.retrain import SharedTraining
    from paretopath.training.trainer import fit

    settings, data = run.recipe.train, scoring.data
    if run.recipe.exits.fit == "closed_form":
        from paretopath.training.closed_form import solve_exits

        batches = data.loader("calibration", shuffle_seed=settings.seed)
        solve_exits(
            model.to(run.device).eval(),
            exit_paths(model),
            learning.parameters,
            batches,
            progress=partial(on_phase, "solving exits"),
            batches_in_all=len(batches),
        )
        return
    task = create_task(run.recipe.task, training=settings)
    paths, distil = exit_paths(model), settings.self_distillation
    module: SharedTraining | NewPartsTraining
    if learning.is_whole:
        every_path = settings.model_copy(update={"paths_per_step": len(paths)})
        module, shown = SharedTraining(model, paths, every_path, task, distil=distil), paths[-1:]
    else:
        module, shown = (
            NewPartsTraining(model, paths, learning.parameters, settings, task, distil=distil),
            paths,
        )
        data = keep_features(
            module,
            data,
            device=run.device,
            limit_bytes=run.recipe.accuracy.feature_mb * 2**20,
            progress=partial(on_phase, "running what is frozen"),
        )
    fit(
        module,
        data.loader("train", shuffle_seed=settings.seed),
        checkpoint_dir=run.training_dir,
        report=report_epochs(scoring, model, shown, on_epoch),
    )
    model.requires_grad_(True)
    if learning.is_whole:
        scoring.settle(model.to(run.device), paths)
