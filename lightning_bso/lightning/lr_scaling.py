"""How a learning rate follows the batch size.

What `configure_optimizers` returned is changed once, before the first step, as though every learning rate in it had
been written multiplied by a factor: those of the optimizers and the bounds that schedulers keep, so that the whole
schedule is multiplied. `callback.py` calls this in `on_fit_start`: what a checkpoint holds has been scaled already, and
is restored after it.
"""

import math
from collections.abc import Iterator
from typing import Any, Literal, get_args

import lightning.pytorch as pl
from lightning.pytorch.callbacks import LearningRateFinder
from lightning.pytorch.utilities.exceptions import MisconfigurationException
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import optim
from torch.optim.lr_scheduler import LRScheduler

LRScaling = Literal["linear", "sqrt", "auto"]
LR_SCALINGS: tuple[str, ...] = get_args(LRScaling)

# "auto": linear where a step is in proportion to the gradient, sqrt where it is divided by the gradients' recent size.
# For other optimizers there is no settled rule.
_LINEAR = (optim.SGD, optim.ASGD)
_SQRT = (optim.Adam, optim.AdamW, optim.NAdam, optim.RAdam, optim.Adamax, optim.SparseAdam, optim.RMSprop)

_RATES_OF_A_GROUP = ("lr", "initial_lr", "max_lr", "min_lr", "base_lr", "swa_lr")
# The eps of ReduceLROnPlateau is not among them: it only tells a rate from rounding.
_RATES_OF_A_SCHEDULER = ("base_lrs", "max_lrs", "min_lrs", "default_min_lr", "eta_min", "_last_lr")


def scale_learning_rates(trainer: pl.Trainer, rule: LRScaling, ratio: float) -> None:
    """Multiply all learning rates of a fit; call it once, in `Callback.on_fit_start`, on every rank.

    Args:
        trainer: the trainer, with its optimizers and schedulers made.
        rule: "linear": by the ratio; "sqrt": by its square root; "auto": by the one that suits each optimizer's class.
        ratio: batch size of the run, over the one that the learning rates were written for.

    Raises:
        MisconfigurationException: "auto" does not know an optimizer's class, a scheduler is none of torch's, or a
            LearningRateFinder looks for the rate.
    """
    if any(isinstance(callback, LearningRateFinder) for callback in trainer.callbacks):  # type: ignore[attr-defined]
        raise MisconfigurationException(
            f"lr_scaling={rule!r} would scale what the LearningRateFinder finds, which is for this run's batch size "
            "already. Leave one of them out"
        )
    schedulers = [part for config in trainer.lr_scheduler_configs for part in _with_parts(config.scheduler)]
    for optimizer in dict.fromkeys(trainer.optimizers):  # once, also one that is there again with another scheduler
        factor = _factor(optimizer, rule, ratio)
        rank_zero_info("The learning rate of %s is multiplied by %g.", type(optimizer).__name__, factor)
        for group in (optimizer.defaults, *optimizer.param_groups):  # the defaults are those of groups to come
            _multiply(group, _RATES_OF_A_GROUP, factor)
    for scheduler in dict.fromkeys(schedulers):
        _multiply(vars(scheduler), _RATES_OF_A_SCHEDULER, _factor(scheduler.optimizer, rule, ratio))


def _factor(optimizer: optim.Optimizer, rule: LRScaling, ratio: float) -> float:
    if rule == "linear" or (rule == "auto" and isinstance(optimizer, _LINEAR)):
        return ratio
    if rule == "sqrt" or isinstance(optimizer, _SQRT):
        return math.sqrt(ratio)
    known = ", ".join(kind.__name__ for kind in (*_LINEAR, *_SQRT))
    raise MisconfigurationException(
        f"lr_scaling='auto' does not know how the learning rate of {type(optimizer).__name__} follows the batch size; "
        f"it knows {known}. Choose lr_scaling='linear' or 'sqrt' yourself, or leave it out"
    )


def _with_parts(scheduler: Any) -> Iterator[LRScheduler]:
    """A scheduler and those that it is made of."""
    if not isinstance(scheduler, LRScheduler):
        raise MisconfigurationException(
            f"lr_scaling cannot scale the plan of {type(scheduler).__name__}, which is no LRScheduler of torch. "
            "Use one, or leave lr_scaling out and scale in configure_optimizers, by the batch size that is set by then"
        )
    yield scheduler
    for part in getattr(scheduler, "_schedulers", ()):
        yield from _with_parts(part)


def _multiply(holder: dict[str, Any], names: tuple[str, ...], factor: float) -> None:
    """Multiply what is held under these names, by new values: the old ones, if tensors, may be the user's own."""
    for name in names:
        value = holder.get(name)
        if isinstance(value, (list, tuple)):
            holder[name] = [each * factor for each in value]
        elif value is not None:
            holder[name] = value * factor
