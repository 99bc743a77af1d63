"""What is looked at before a fit takes a trial: whether its Trainer can bring that to a verdict."""

import lightning.pytorch as pl
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_bso.wire import JobSpec


def check_trainer(trainer: pl.Trainer, job: JobSpec) -> None:
    """Refuse what cannot end in a verdict, and warn of what is not likely to.

    Raises:
        MisconfigurationException: it cannot.
    """
    if not isinstance(trainer, pl.Trainer):
        raise MisconfigurationException(
            f"ZeusBSOCallback is a callback of lightning.pytorch, and this Trainer is of {type(trainer).__module__}. "
            "Import it from lightning.pytorch"
        )
    if 0 in (trainer.max_epochs, trainer.max_steps, trainer.limit_train_batches):
        raise MisconfigurationException(
            "this fit takes no training step: max_epochs, max_steps or limit_train_batches is 0"
        )
    uneven = [size for size in job.batch_sizes if size % trainer.world_size]
    if uneven:
        raise MisconfigurationException(
            f"the job's batch sizes are those of all {trainer.world_size} processes together, and "
            f"{', '.join(map(str, uneven))} cannot be divided among {trainer.world_size}. Give the job multiples of "
            f"{trainer.world_size}, or train on a number of devices that divides them"
        )
    if not trainer.enable_validation:
        raise MisconfigurationException(
            "ZeusBSOCallback learns from validations, and this fit has none: it needs a validation_step, a "
            "validation loader, and limit_val_batches above 0"
        )
    if trainer.accumulate_grad_batches > 1:
        rank_zero_warn(
            f"accumulate_grad_batches={trainer.accumulate_grad_batches} multiplies the batch size that the optimizer "
            "gives: its batch sizes are those of one loader batch"
        )
    if trainer.max_epochs is not None and 0 <= trainer.max_epochs < job.max_epochs:
        rank_zero_warn(
            f"Trainer(max_epochs={trainer.max_epochs}) ends before the job's max_epochs={job.max_epochs}: a run "
            "that has not converged by then ends without a verdict, and the optimizer learns nothing from it"
        )


def check_validation_data(trainer: pl.Trainer) -> None:
    """Refuse a fit that has begun, and whose validations have nothing to look at; call it in `on_train_start`.

    Raises:
        MisconfigurationException: they have not.
    """
    if trainer.val_dataloaders is not None and not sum(trainer.num_val_batches):  # None: they are built later
        raise MisconfigurationException(
            "ZeusBSOCallback learns from validations, and those of this fit have no batch: give it validation data"
        )
