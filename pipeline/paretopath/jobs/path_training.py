"""The trainings themselves: several paths in one set of weights, or one path alone."""

from collections.abc import Mapping
from typing import Any, TypeVar

from torch import nn

from paretopath.elastic.batch_norm import StatisticsFolder
from paretopath.jobs.retrain_job import Part, PathResult, RetrainJob
from paretopath.jobs.training import SCORED, finite, report_epochs, score_split
from paretopath.recipe import RetrainSettings
from paretopath.run import Run, environment
from paretopath.tasks.registry import create_task
from paretopath.training.epoch import EpochListener
from paretopath.weights.files import write_described

M = TypeVar("M", bound=nn.Module)


def train_shared(
    run: Run,
    job: RetrainJob,
    settings: RetrainSettings,
    on_epoch: EpochListener,
    part: Part,
) -> list[PathResult]:
    """Trains a job's paths together with the full one, and measures all of them."""
    from paretopath.training.retrain import SharedTraining

    model = run.load_model()
    paths = list(dict.fromkeys([*job.paths, run.space.full]))
    task = create_task(run.recipe.task, training=settings)
    costs = run.table(paths)[run.recipe.search.cost].tolist()
    module = SharedTraining(model, paths, settings, task, costs=costs)
    report = report_epochs(run, model, paths, on_epoch, shared=True)
    _fit(run, job, module, report, part)
    if not part.is_first:
        return []
    model = _trained(run, job, model, "model.", part)
    validation, test = (
        run.evaluator(model, split, shared=True, keep=True)(paths) for split in SCORED
    )
    return [
        PathResult(path, finite(v), finite(t))
        for path, v, t in zip(paths, validation, test, strict=True)
    ]


def train_separate(
    run: Run,
    job: RetrainJob,
    settings: RetrainSettings,
    on_epoch: EpochListener,
    part: Part,
) -> list[PathResult]:
    """Trains a job's path alone, taught by the full one, and measures it."""
    from paretopath.training.retrain import SeparateTraining
    from paretopath.training.trainer import EpochReport

    (path,) = job.paths
    teacher, student = run.load_model(), _fresh(run, job)
    task = create_task(run.recipe.task, training=settings)
    module = SeparateTraining(student, teacher, settings, task)

    def validate() -> Mapping[str, float]:
        return {path.id: score_split(run, student, "validation").value}

    _fit(run, job, module, EpochReport(on_epoch, validate=validate), part)
    if not part.is_first:
        return []
    student = _trained(run, job, student, "student.", part)
    validation, test = (score_split(run, student, split) for split in SCORED)
    return [PathResult(path, validation, test)]


def _fit(run: Run, job: RetrainJob, module: Any, report: Any, part: Part) -> None:
    """This process's part of a training, from its last checkpoint to its end."""
    from paretopath.training.trainer import ALONE, fit

    loader = run.data.loader("train", shuffle_seed=run.recipe.retrain.seed, share=part.share)
    fit(
        module,
        loader,
        checkpoint_dir=job.folder(run) / "training",
        report=report,
        processes=part.processes or ALONE,
        device=run.device,
        signals=part.signals,
    )


def _trained(run: Run, job: RetrainJob, model: M, prefix: str, part: Part) -> M:
    """The trained model on the run's device, its weights written beside what they are."""
    if part.processes and part.processes.strategy == "fsdp":
        from paretopath.training.trainer import trained_state

        # the processes hold shards, so the weights come from the last checkpoint
        state = trained_state(job.folder(run) / "training", prefix)
        model = _fresh(run, job).to("cpu")  # type: ignore[assignment]
        model.load_state_dict(state)
    write_described(
        job.folder(run) / "weights.safetensors",
        model.state_dict(),
        {
            "mode": job.mode,
            "paths": [dict(path) for path in job.paths],
            "recipe": run.recipe.dump(),
            "versions": environment(run.device),
        },
    )
    return model.to(run.device)


def _fresh(run: Run, job: RetrainJob) -> nn.Module:
    """The model of a job before its training."""
    model = run.load_model()
    if job.mode == "shared":
        return model
    (path,) = job.paths
    return model.extract(path, StatisticsFolder(run.statistics_dir(shared=False))[path])
