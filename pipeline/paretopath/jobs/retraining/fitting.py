"""The trainings themselves: several paths in one set of weights, or one path alone."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, TypeVar

from torch import nn

from paretopath.elastic import ElasticSpace
from paretopath.elastic.repair import repairable
from paretopath.errors import InvalidValueError
from paretopath.jobs.epochs import SCORED, finite, report_epochs
from paretopath.jobs.retraining.plan import Part, PathResult, RetrainJob
from paretopath.recipe import RetrainSettings
from paretopath.run import Run, Scoring, build_table, load_model
from paretopath.run.environment import environment
from paretopath.training.epoch import EpochListener
from paretopath.weights.files import write_described

M = TypeVar("M", bound=nn.Module)


def closed_form_scoring(scoring: Scoring, settings: RetrainSettings) -> Scoring:
    """The same images and task, each path re-solved on as many images as a retraining asks for."""
    return replace(scoring, repair_images=settings.images)


def solve_closed_form(run: Run, scoring: Scoring, job: RetrainJob) -> list[PathResult]:
    """Re-solves a job's paths on more images than the search did, and measures them.

    Raises:
        InvalidValueError: the family names no layer that can be re-solved.
    """
    model = load_model(scoring.space, run.weights_file, run)
    if not repairable(model):
        raise InvalidValueError(
            f"mode closed_form re-solves layers that narrowed channels are read by, but the space "
            f"{run.recipe.space.name} names none; legal modes for it: shared, separate"
        )
    more, kept = closed_form_scoring(scoring, run.recipe.retrain), run.own(job.mode)
    validation, test = (
        list(more.evaluator(model, split, kept=kept)(job.paths)) for split in SCORED
    )
    return [
        PathResult(path, finite(v), finite(t))
        for path, v, t in zip(job.paths, validation, test, strict=True)
    ]


def train_shared(
    run: Run,
    scoring: Scoring,
    job: RetrainJob,
    on_epoch: EpochListener,
    part: Part,
) -> list[PathResult]:
    """Trains a job's paths together with the full one, and measures all of them."""
    from paretopath.training.retrain import SharedTraining

    model = load_model(scoring.space, run.weights_file, run)
    paths = list(dict.fromkeys([*job.paths, scoring.space.full]))
    table = build_table(run, scoring.space.whole)
    costs = table(paths)[run.recipe.search.cost].tolist()
    settings = run.recipe.retrain
    weight = settings.exit_weight or float(run.recipe.exits.search)
    module = SharedTraining(model, paths, settings, scoring.task, costs=costs, passed_weight=weight)
    report = report_epochs(scoring, model, paths, on_epoch, shared=True)
    _fit(run, scoring, job, module, report, part)
    if not part.is_first:
        return []
    model = _trained(run, scoring.space, job, model, "model.", part)
    validation, test = (
        scoring.evaluator(model, split, shared=True, kept=run.own("shared"))(paths)
        for split in SCORED
    )
    return [
        PathResult(path, finite(v), finite(t))
        for path, v, t in zip(paths, validation, test, strict=True)
    ]


def train_separate(
    run: Run,
    scoring: Scoring,
    job: RetrainJob,
    on_epoch: EpochListener,
    part: Part,
) -> list[PathResult]:
    """Trains a job's path alone, taught by the full one, and measures it."""
    from paretopath.training.retrain import SeparateTraining, passed_exits
    from paretopath.training.trainer import EpochReport

    (path,) = job.paths
    teacher = load_model(scoring.space, run.weights_file, run)
    student = fresh(run, scoring.space, job)
    settings = run.recipe.retrain
    weight = settings.exit_weight
    passed = passed_exits(teacher, path) if weight else {}
    module = SeparateTraining(
        student, teacher, settings, scoring.task, passed=passed, passed_weight=weight
    )

    def validate() -> Mapping[str, float]:
        return {path.id: scoring.score(student, "validation").value}

    _fit(run, scoring, job, module, EpochReport(on_epoch, validate=validate), part)
    if not part.is_first:
        return []
    student = _trained(run, scoring.space, job, student, "student.", part)
    validation, test = (scoring.score(student, split) for split in SCORED)
    return [PathResult(path, validation, test)]


def _fit(run: Run, scoring: Scoring, job: RetrainJob, module: Any, report: Any, part: Part) -> None:
    """This process's part of a training, from its last checkpoint to its end."""
    from paretopath.training.trainer import ALONE, fit

    seed = run.recipe.retrain.seed
    loader = scoring.data.loader("train", shuffle_seed=seed, share=part.share)
    fit(
        module,
        loader,
        checkpoint_dir=job.folder / "training",
        report=report,
        processes=part.processes or ALONE,
        device=run.device,
        signals=part.signals,
    )


def _trained(
    run: Run, space: ElasticSpace, job: RetrainJob, model: M, prefix: str, part: Part
) -> M:
    """The trained model on the run's device, its weights written beside what they are."""
    if part.processes and part.processes.strategy == "fsdp":
        from paretopath.training.trainer import trained_state

        # the processes hold shards, so the weights come from the last checkpoint
        state = trained_state(job.folder / "training", prefix)
        model = fresh(run, space, job).to("cpu")  # type: ignore[assignment]
        model.load_state_dict(state)
    write_described(
        job.folder / "weights.safetensors",
        model.state_dict(),
        {
            "mode": job.mode,
            "paths": [dict(path) for path in job.paths],
            "recipe": run.recipe.dump(),
            "versions": environment(run.device),
        },
    )
    return model.to(run.device)


def fresh(run: Run, space: ElasticSpace, job: RetrainJob) -> nn.Module:
    """The model of a job before its training."""
    model = load_model(space, run.weights_file, run)
    if job.mode == "shared":
        return model
    (path,) = job.paths
    start = run.recipe.retrain.start
    return model.extract(path, run.own()[path] if start == "repaired" else None)
