"""Describes a training as a job, where its user has not.

`describe` reads what the training is now: its batch size, its data, its metric, its epochs. What may change from day to
day is no part of the job's identity, so the server recognizes the training when it is launched again.
How a batch size is found is in `dataloading.py`. Who asks the server for the job is `lightning_bso.optimizer`.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_bso import variables
from lightning_bso.identity import DerivedJob
from lightning_bso.lightning.dataloading import fewest_batches, make_train_loaders, present_batch_size
from lightning_bso.lightning.families import classes, misconfiguration
from lightning_bso.lightning.loaders import length
from lightning_bso.lightning.locating import class_name
from lightning_bso.wire import GENERATED_ID_LENGTH, MAX_ID_LENGTH, JobSpec

if TYPE_CHECKING:
    import lightning.pytorch as pl

DOUBLINGS = 3
"""How many times the default batch size is doubled, and halved."""
MIN_BATCHES = 4
"""Number of batches that the training data must fill, for a batch size larger than the default."""
UNLIMITED_EPOCHS = 1000
"""What a Trainer without a limit of its epochs counts as. It is Lightning's own default."""
_LOWER_IS_BETTER = re.compile(r"loss|err|mse|mae|mape|nll|perplexity|ppl", re.IGNORECASE)
_LIMITS = ("max_steps", "limit_train_batches", "limit_val_batches", "overfit_batches")
"""Attributes of a Trainer that make a short trial run of a training."""
_NO_METRIC = re.compile(r"step|epoch|train.*")


@dataclass(frozen=True, slots=True)
class Metric:
    """The logged metric that a job's runs are judged by."""

    name: str
    higher_is_better: bool
    is_assumed: bool = False
    """Whether nothing names the metric, so that another may be the right one."""
    sign: int = 1
    """-1: the metric has the other direction than the job, so its negative is reported."""

    @property
    def names(self) -> tuple[str, ...]:
        """The names under which a validation may log the metric."""
        return (self.name, ACCURACY) if self.is_assumed else (self.name,)

    def or_logged(self, logged: set[str]) -> Metric:
        """Return this metric, or the usual one that is logged instead if this one is only assumed."""
        if not self.is_assumed or self.name in logged or ACCURACY not in logged:
            return replace(self, is_assumed=False)
        return replace(self, name=ACCURACY, is_assumed=False, sign=-1)


LOSS, ACCURACY = "val_loss", "val_acc"
"""The usual names of a validation's metrics."""


def find_metric(trainer: pl.Trainer, name: str | None, higher_is_better: bool | None) -> Metric:
    """Return the metric of a training. What is None is taken from the callbacks that watch a metric.

    Args:
        trainer: the trainer. Its ModelCheckpoint and EarlyStopping name a metric and its direction.
        name: the name that the user gave.
        higher_is_better: the direction that the user gave.
    """
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    kinds = (*classes("callbacks:ModelCheckpoint"), *classes("callbacks:EarlyStopping"))
    watched = [
        (each.monitor, each.mode == "max")
        for each in callbacks
        if isinstance(each, kinds) and each.monitor and not _NO_METRIC.fullmatch(each.monitor)
    ]
    chosen = name or (watched[0][0] if watched else LOSS)
    if higher_is_better is None:
        higher_is_better = dict(reversed(watched)).get(chosen, not _LOWER_IS_BETTER.search(chosen))
    return Metric(chosen, higher_is_better, is_assumed=name is None and not watched)


def job_id_prefix(trainer: pl.Trainer, module: pl.LightningModule) -> str:
    """Return how the names of a training's jobs begin: `$ZEUS_BSO_JOB`, or else the names of its classes."""
    names = "-".join(type(part).__name__ for part in _parts(trainer, module))
    return (os.environ.get(variables.JOB) or names)[: MAX_ID_LENGTH - GENERATED_ID_LENGTH]


def describe(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    metric: Metric,
    names: Sequence[str],
    given: Mapping[str, Any],
    max_device_batch_size: int | None = None,
) -> DerivedJob:
    """Describe a training as a job. Call this in `Callback.setup`, before the batch size is set.

    The batch sizes of the job are global: those of one loader on one device, times the number of devices. Batches whose
    gradients the Trainer accumulates are not counted together.

    Args:
        trainer: the trainer.
        module: the module to fit.
        metric: the metric that the runs are judged by.
        names: names of the attributes that hold the batch size.
        given: the fields of the job that the user gave.
        max_device_batch_size: the largest batch size of one device. None: no limit.

    Raises:
        MisconfigurationException: what holds the batch size has no number, and the user gave none.
    """
    ranks, present = trainer.world_size, present_batch_size(trainer, module, names)
    default: int | None = given.get("default_batch_size", None if present is None else present * ranks)
    if default is None:
        raise misconfiguration(
            f"the batch size that this training has now is unknown: {' and '.join(map(repr, names))} holds no number. "
            "Set it to the batch size that you use today, or give ZeusBSOCallback a job with default_batch_size"
        )
    prefix = given.get("job_id_prefix") or job_id_prefix(trainer, module)

    def derive() -> JobSpec:
        largest = _largest(trainer, max_device_batch_size)
        derived = {
            "job_id_prefix": prefix,
            "batch_sizes": [size * ranks for size in batch_sizes_around(default // ranks, largest)],
            "default_batch_size": default,
            "target_metric": None,
            "higher_is_better_metric": metric.higher_is_better,
            "max_epochs": _max_epochs(trainer),
        }
        return JobSpec.model_validate(derived | dict(given))

    return DerivedJob(prefix, _identity(trainer, module, metric, names, given), derive)


def batch_sizes_around(batch_size: int, largest: int | None) -> list[int]:
    """Return a batch size, its halves and its doubles, as far as they are at most `largest`. None: no limit.

    A single sample is left out, because batch normalization refuses it in training.
    """
    smaller = {batch_size >> halvings for halvings in range(1, DOUBLINGS + 1)} - {0, 1}
    larger = {batch_size << doublings for doublings in range(1, DOUBLINGS + 1)}
    return sorted({*smaller, batch_size, *(size for size in larger if largest is None or size <= largest)})


def as_code(job: JobSpec, metric: Metric, *, stop: bool) -> str:
    """Return the callback with a job, ready to be pasted into a program. The job gets a name of its own."""
    if metric.sign < 0:
        job = job.model_copy(update={"higher_is_better_metric": not job.higher_is_better_metric})
    fields = job.model_dump(exclude_defaults=True, exclude={"job_id", "max_power", "number_of_gpus", "gpu_model"})
    if "target_metric" in fields:
        fields["target_metric"] = job.target_metric or "auto"
    arguments = ", ".join(f"{name}={value!r}" for name, value in fields.items())
    return f"ZeusBSOCallback(job=JobSpec({arguments}), monitor={metric.name!r}, stop={stop})"


def _parts(trainer: pl.Trainer, module: pl.LightningModule) -> list[Any]:
    datamodule = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
    return [module] if datamodule is None else [module, datamodule]


def _max_epochs(trainer: pl.Trainer) -> int:
    epochs = trainer.max_epochs
    return epochs if epochs is not None and epochs > 0 else UNLIMITED_EPOCHS


def _largest(trainer: pl.Trainer, max_device_batch_size: int | None) -> int | None:
    """Return the largest batch size of a device of which the training data fill enough batches."""
    known = (length(getattr(loader, "dataset", None)) for loader in make_train_loaders(trainer))
    samples = min(filter(None, known), default=None)
    limits = [] if max_device_batch_size is None else [max_device_batch_size]
    if samples is not None:
        limits.append(samples // (max(MIN_BATCHES, fewest_batches(trainer)) * trainer.world_size))
    return min(limits, default=None)


def _identity(
    trainer: pl.Trainer, module: pl.LightningModule, metric: Metric, names: Sequence[str], given: Mapping[str, Any]
) -> str:
    """Return what tells a training from others, as text. The amount of data and the batch size are no part of it."""
    holders = {path.rpartition(".")[2] for path in names}
    parts = {_class_in_script(part): _plain(part.hparams, holders) for part in _parts(trainer, module)}
    return json.dumps(
        {
            "parts": parts,
            "monitor": metric.name,
            "higher_is_better": metric.higher_is_better,
            "max_epochs": trainer.max_epochs,
            "accumulate_grad_batches": trainer.accumulate_grad_batches,
            "limits": {name: repr(getattr(trainer, name, None)) for name in _LIMITS},
            "world_size": trainer.world_size,
            "given": _plain(given, set()),
        },
        sort_keys=True,
    )


def _class_in_script(part: object) -> str:
    """Return the name of a part's class. Every script's own module is `__main__`, so the script's name is added."""
    file = getattr(sys.modules["__main__"], "__file__", None)
    if file is None or type(part).__module__ not in ("__main__", "__mp_main__"):
        return class_name(part)
    return f"{Path(file).name}:{class_name(part)}"


def _plain(value: Any, skipped: set[str]) -> Any:
    """Return a value with everything that is not plain replaced by the name of its type."""
    if isinstance(value, Mapping):
        return {str(name): _plain(each, skipped) for name, each in value.items() if name not in skipped}
    if is_dataclass(value) and not isinstance(value, type):
        return _plain({each.name: getattr(value, each.name) for each in fields(value)}, skipped)
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(each, skipped) for each in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, Enum):
        return value.name
    return repr(value) if value is None or type(value) in (bool, int, float, str) else class_name(value)
