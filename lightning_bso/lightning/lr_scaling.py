"""Scales the learning rates of a fit with the batch size.

The optimizers and schedulers are changed once, before the first step, as if `configure_optimizers` had multiplied
every learning rate by a factor. That includes the bounds that schedulers hold, so the whole schedule is scaled.
`callback.py` calls this in `on_fit_start`. Lightning restores a checkpoint later, and its values are scaled already.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

from torch import optim
from torch.optim.lr_scheduler import LRScheduler

from lightning_bso.lightning.families import classes, misconfiguration, rank_zero_info

if TYPE_CHECKING:
    import lightning.pytorch as pl

LRScaling = Literal["linear", "sqrt", "auto"]
LR_SCALINGS: tuple[str, ...] = get_args(LRScaling)

# "auto": linear where a step is proportional to the gradient, sqrt where a step is divided by the size of recent
# gradients. There is no established rule for other optimizers.
_LINEAR = (optim.SGD, optim.ASGD)
_SQRT = (optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax, optim.SparseAdam, optim.RMSprop)

_GROUP_RATES = ("lr", "initial_lr", "max_lr", "min_lr", "base_lr", "swa_lr")
# Without the eps of ReduceLROnPlateau, which is a tolerance for rounding.
_SCHEDULER_RATES = ("base_lrs", "max_lrs", "min_lrs", "default_min_lr", "eta_min", "_last_lr")


def scale_learning_rates(trainer: pl.Trainer, rule: LRScaling, ratio: float) -> None:
    """Multiply all learning rates of a fit. Call this once, in `Callback.on_fit_start`, on every rank.

    Args:
        trainer: the trainer, with its optimizers and schedulers.
        rule: "linear": by the ratio; "sqrt": by its square root; "auto": by the rule for each optimizer's class.
        ratio: batch size of the run, divided by the batch size that the learning rates were written for.

    Raises:
        MisconfigurationException: "auto" has no rule for an optimizer's class, a scheduler is not torch's, or a
            LearningRateFinder searches for the rate.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    if any(isinstance(callback, classes("callbacks:LearningRateFinder")) for callback in callbacks):
        raise misconfiguration(
            f"lr_scaling={rule!r} would scale the result of the LearningRateFinder, which already fits this run's "
            "batch size. Remove one of the two"
        )
    schedulers = [part for config in trainer.lr_scheduler_configs for part in _with_parts(config.scheduler)]
    for optimizer in dict.fromkeys(trainer.optimizers):  # an optimizer with two schedulers is listed twice
        factor = _factor(optimizer, rule, ratio)
        rank_zero_info("The learning rate of %s is multiplied by %g.", type(optimizer).__name__, factor)
        for group in (optimizer.defaults, *optimizer.param_groups):  # the defaults apply to groups that are added later
            _multiply(group, _GROUP_RATES, factor)
    for scheduler in dict.fromkeys(schedulers):
        _multiply(vars(scheduler), _SCHEDULER_RATES, _factor(scheduler.optimizer, rule, ratio))


def _factor(optimizer: optim.Optimizer, rule: LRScaling, ratio: float) -> float:
    if rule == "linear" or (rule == "auto" and isinstance(optimizer, _LINEAR)):
        return ratio
    if rule == "sqrt" or isinstance(optimizer, _SQRT):
        return math.sqrt(ratio)
    supported = ", ".join(optimizer_class.__name__ for optimizer_class in (*_LINEAR, *_SQRT))
    raise misconfiguration(
        f"lr_scaling='auto' has no rule for the learning rate of {type(optimizer).__name__}; it supports {supported}. "
        "Choose lr_scaling='linear' or 'sqrt', or leave lr_scaling out"
    )


def _with_parts(scheduler: Any) -> Iterator[LRScheduler]:
    """Yield a scheduler and the schedulers inside it."""
    if not isinstance(scheduler, LRScheduler):
        raise misconfiguration(
            f"lr_scaling cannot scale the schedule of {type(scheduler).__name__}, which is not a torch LRScheduler. "
            "Use a torch LRScheduler. Or leave lr_scaling out, and scale in configure_optimizers: there the batch size "
            "is already set"
        )
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _with_parts(part)


def _multiply(holder: dict[str, Any], names: tuple[str, ...], factor: float) -> None:
    """Multiply the values under these names. It stores new objects, because the user may share a tensor."""
    for name in names:
        value = holder.get(name)
        if isinstance(value, (list, tuple)):
            holder[name] = [rate * factor for rate in value]
        elif value is not None:
            holder[name] = value * factor
