"""Checks that a Trainer can bring a trial to a verdict: before the fit takes a trial, and once its loaders exist.

Checks of the batch size and its loaders are in `dataloading.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_bso.lightning.families import classes, family_of, misconfiguration, rank_zero_warn
from lightning_bso.wire import JobSpec

if TYPE_CHECKING:
    import lightning.pytorch as pl


def check_trainer(trainer: pl.Trainer, job: JobSpec | None, *, accumulates: bool) -> None:
    """Refuse a fit that cannot end in a verdict. Warn about a fit that may end without one.

    Args:
        trainer: the trainer in `setup`.
        job: the job. None: it is derived from the training.
        accumulates: whether the callback will set the number of batches in an optimizer step.

    Raises:
        MisconfigurationException: the fit cannot end in a verdict.
    """
    family_of(trainer)  # raises if the Trainer is not Lightning's
    if 0 in (trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches):
        raise misconfiguration(
            "this fit takes no training step, because max_epochs, max_steps or limit_train_batches is 0. Raise it, or "
            "train without ZeusBSOCallback"
        )
    uneven = [] if job is None else [size for size in job.batch_sizes if size % trainer.world_size]
    if uneven:
        raise misconfiguration(
            f"the job's batch sizes are global, and {', '.join(map(str, uneven))} cannot be divided among the "
            f"{trainer.world_size} processes of this run. Give the job multiples of {trainer.world_size}, or train on "
            "a number of devices that divides all batch sizes"
        )
    if not trainer.enable_validation:
        raise misconfiguration(
            "ZeusBSOCallback learns from validations, and this fit has none. Give it a validation_step and a "
            "validation loader, and set limit_val_batches above 0"
        )
    every, epochs = trainer.check_val_every_n_epoch, trainer.max_epochs
    if every is not None and epochs is not None and 0 < epochs < every:
        raise misconfiguration(
            f"ZeusBSOCallback learns from validations, and none falls due in this fit: check_val_every_n_epoch={every} "
            f"is more than max_epochs={epochs}. Lower the former, or raise the latter"
        )
    interval, batches = _interval(trainer), _batch_limit(trainer, accumulates=accumulates)
    if isinstance(interval, int) and batches is not None and batches < interval:
        raise misconfiguration(
            f"ZeusBSOCallback learns from validations, and none falls due in this fit: val_check_interval={interval} "
            f"is more than the {batches} batches that limit_train_batches or max_steps allow. Lower the former, or "
            "raise the latter"
        )
    if trainer.accumulate_grad_batches > 1:
        rank_zero_warn(
            f"accumulate_grad_batches={trainer.accumulate_grad_batches} multiplies the batch size that the server "
            "chooses, because the job's batch sizes are those of one loader batch"
        )
    if job is not None and trainer.max_epochs is not None and 0 <= trainer.max_epochs < job.max_epochs:
        rank_zero_warn(
            f"Trainer(max_epochs={trainer.max_epochs}) ends before the job's max_epochs={job.max_epochs}. A run that "
            "has not converged by then ends without a verdict, and the optimizer learns nothing from it. Raise the "
            "Trainer's max_epochs"
        )


def _interval(trainer: pl.Trainer) -> int | float | None:
    """Return `val_check_interval`, or None if it is a time. Lightning then sets no such attribute."""
    interval: int | float | None = getattr(trainer, "val_check_interval", None)
    return interval


def _batch_limit(trainer: pl.Trainer, *, accumulates: bool) -> int | None:
    """Return the largest number of batches that a validation may wait for, whatever the loaders have. None: no limit.

    With an epoch's number, Lightning counts the batches of `val_check_interval` anew in each epoch. How many batches
    `max_steps` allows is known only if each step takes the same number of batches.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    schedulers = classes("callbacks:GradientAccumulationScheduler")
    varies = accumulates or any(isinstance(each, schedulers) for each in callbacks)
    steps_are_even = trainer.lightning_module.automatic_optimization and not varies
    limits = []
    if trainer.max_steps > 0 and steps_are_even:
        limits.append(trainer.max_steps * trainer.accumulate_grad_batches)
    in_epoch = trainer.limit_train_batches
    if trainer.check_val_every_n_epoch is not None and isinstance(in_epoch, int):
        limits.append(in_epoch)
    return min(limits, default=None)


def check_validates(trainer: pl.Trainer) -> None:
    """Refuse a fit that never validates with the batch size of its loader. Call this in `Callback.on_train_start`.

    Raises:
        MisconfigurationException: no validation falls due.
    """
    reason = _why_never_validates(trainer)
    if reason is not None:
        raise misconfiguration(f"ZeusBSOCallback learns from validations, and none falls due in this fit: {reason}")


def why_unfit(trainer: pl.Trainer, error: BaseException) -> str | None:
    """Say why every fit with the loader's batch size ends in this error. None: not every fit does, as far as is known.

    The error is that of `check_validates`, or the ValueError that Lightning raises when it builds the train loader.
    """
    reason = _why_never_validates(trainer)
    return reason if reason is not None and (isinstance(error, ValueError) or reason in str(error)) else None


def how_to_validate(trainer: pl.Trainer) -> str:
    """Say what to do about an interval of validations that is too long for a batch size."""
    if trainer.check_val_every_n_epoch is None:
        return "lower val_check_interval, raise max_epochs, or remove the batch size from the job"
    return (
        "give val_check_interval as a part of an epoch (0.0 to 1.0), set check_val_every_n_epoch=None to count batches "
        "across epochs, or remove the batch size from the job"
    )


def _why_never_validates(trainer: pl.Trainer) -> str | None:
    """Compare an int `val_check_interval` with the number of batches that it counts: those of an epoch, or of all."""
    interval, batches, epochs = _interval(trainer), trainer.num_training_batches, trainer.max_epochs
    if not isinstance(interval, int):
        return None
    if trainer.check_val_every_n_epoch is not None and interval > batches:
        return f"val_check_interval={interval} is more than the {batches} batches of an epoch"
    if trainer.check_val_every_n_epoch is None and epochs is not None and epochs > 0 and interval > epochs * batches:
        return f"val_check_interval={interval} is more than the {epochs * batches} batches of {epochs} epochs"
    return None


def warn_of_few_steps(trainer: pl.Trainer, job: JobSpec) -> None:
    """Warn of a fit whose `max_steps` end it before the job's last epoch. Call this in `Callback.on_train_start`."""
    epochs = trainer.max_steps * trainer.accumulate_grad_batches / max(1, trainer.num_training_batches)
    if trainer.max_steps > 0 and trainer.lightning_module.automatic_optimization and epochs < job.max_epochs:
        rank_zero_warn(
            f"Trainer(max_steps={trainer.max_steps}) ends this fit after {epochs:.3g} epochs, before the job's "
            f"max_epochs={job.max_epochs}. A run that has not converged by then ends without a verdict, and the "
            "optimizer learns nothing from it. Lower the job's max_epochs, or raise max_steps"
        )


def check_validation_data(trainer: pl.Trainer) -> None:
    """Refuse a fit whose validation loaders have no batches. Call this in `Callback.on_train_start`.

    Raises:
        MisconfigurationException: there is no validation batch.
    """
    if trainer.val_dataloaders is not None and not sum(trainer.num_val_batches):  # None: Lightning builds them later
        raise misconfiguration(
            "ZeusBSOCallback learns from validations, and the validation loaders of this fit have no batches. Give it "
            "validation data"
        )
