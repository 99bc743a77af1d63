"""The callback that `lightning_bso.factory` adds to every Trainer of a program that does not know it.

Nothing of it ends a training. What ZeusBSOCallback would refuse or raise is one warning here, and the fit goes on as it
would without it. Which fits it takes part in is in `recurring.py`. What it does in them is in `callback.py`.
"""

from __future__ import annotations

import functools
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from typing_extensions import override

from lightning_bso import variables
from lightning_bso.energy import gpu_indices, make_meter
from lightning_bso.errors import is_out_of_memory
from lightning_bso.identity import DerivedJob
from lightning_bso.lightning.callback import ZeusBSOCallback
from lightning_bso.lightning.checks import check_trainer
from lightning_bso.lightning.dataloading import (
    check_can_accumulate,
    present_batch_size,
    remember,
    why_left_over,
    why_too_large,
)
from lightning_bso.lightning.describing import as_code, job_id_prefix
from lightning_bso.lightning.families import Callback, classes, find, loaded, rank_zero_info
from lightning_bso.lightning.recurring import why_no_recurrence
from lightning_bso.transport import hurried
from lightning_bso.wire import JobSpec

if TYPE_CHECKING:
    import lightning.pytorch as pl

HURRY_S = 3.0
"""A call that the server has not answered after this long is given up, because the training waits for it."""

_FAULTS_OF_MACHINES = ("CUDA", "NCCL", "cuDNN", "HIP error", "DataLoader worker", "[", "Connection", "Broken pipe")
"""Beginnings of RuntimeErrors that say nothing about the training's code. Those of gloo and of ranks begin with "["."""

Guarded = TypeVar("Guarded", bound="type[AutomaticBSOCallback]")

log = logging.getLogger(__name__)
# Not a warning of Python's: `python -W error` would make it an error.
_warn = find(loaded()[0], "utilities.rank_zero:rank_zero_only")(log.warning)


def _guard_hooks(cls: Guarded) -> Guarded:
    """Let a callback wait only briefly in its hooks, and stand aside when one fails."""
    for name in dir(Callback):
        hook = getattr(cls, name)
        if not name.startswith("_") and callable(hook) and hook is not getattr(Callback, name):
            setattr(cls, name, _guard(hook))
    return cls


def _guard(hook: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(hook)
    def guarded(self: AutomaticBSOCallback, *args: Any, **kwargs: Any) -> Any:
        try:
            with hurried(HURRY_S):
                return hook(self, *args, **kwargs)
        except Exception as error:  # whatever it is, it must not end the training
            self._stand_aside(error)
            return None

    return guarded


@_guard_hooks
class AutomaticBSOCallback(ZeusBSOCallback):
    """A ZeusBSOCallback that derives the job from the training, and ends no training."""

    _has_fit: ClassVar[bool] = False
    """Whether this process has taken part in a fit."""

    _instances: ClassVar[Iterator[int]] = itertools.count(1)

    def __init__(self) -> None:
        super().__init__()
        self._put_back: Callable[[], None] | None = None
        self._has_own_size = True
        """Whether the fit has the batch size of the training's author."""
        self._number = next(self._instances)

    @property
    @override
    def state_key(self) -> str:
        # Lightning adds the factory's callback to a list of the user's. Two Trainers that share the list then have two
        # such callbacks each, and Lightning refuses two of one key.
        return type(self).__name__ + ("" if self._number == 1 else f"-{self._number}")

    def __getstate__(self) -> dict[str, Any]:
        """Leave out what belongs to the fit of this process."""
        return super().__getstate__() | {"_put_back": None}

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._run = self._put_back = None
        if stage != "fit":
            return
        reason = _why_not(trainer) or why_no_recurrence(
            job_id_prefix(trainer, pl_module),
            _calling_modules(),
            os.environ,
            is_first_fit=not AutomaticBSOCallback._has_fit,
        )
        file = os.environ.get(variables.AUTO_DESCRIBE)
        if file is not None:
            Path(file).write_text(json.dumps(self._preview(trainer, pl_module, reason)))
            raise SystemExit(0)
        if reason is not None:
            rank_zero_info("The automatic batch-size optimizer takes no part in this fit: %s", reason)
            return
        AutomaticBSOCallback._has_fit = True
        own_size = present_batch_size(trainer, pl_module, self._batch_size_names)
        self._put_back = remember(trainer, pl_module, self._batch_size_names)
        self._split_what_does_not_fit(trainer, pl_module)
        try:
            super().setup(trainer, pl_module, stage)
            self._has_own_size = self._loader_size == own_size
            too_large = None if self._has_own_size else why_too_large(trainer)
            leaves_one = None if self._has_own_size else why_left_over(trainer, pl_module)
        except Exception as error:
            self._stand_aside(error)
            self._restore()
        else:
            if too_large is not None or leaves_one is not None:
                self._stand_aside(too_large or leaves_one or "", unfit=too_large is not None)
                self._restore()

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        try:
            super().on_exception(trainer, pl_module, exception)
        finally:
            self._restore()

    @override
    def _why_unfit(self, trainer: pl.Trainer, error: BaseException) -> str | None:
        """Blame any error of the training's code on a batch size that its author has not chosen.

        Otherwise each batch size would break the training several times, or for ever where the error comes late.
        """
        unfit = super()._why_unfit(trainer, error)
        if unfit is None and not self._has_own_size and _is_of_code(error):
            unfit = f"the training breaks: {type(error).__name__}: {error}"
        return unfit

    @override
    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        try:
            super().teardown(trainer, pl_module, stage)
        finally:
            self._restore()

    def _split_what_does_not_fit(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        """Let a fit that runs out of memory go on in smaller parts, if its gradients can be accumulated."""
        self.max_device_batch_size = self.accumulate = None
        with suppress(*classes("utilities.exceptions:MisconfigurationException")):
            check_can_accumulate(trainer, module)
            self.max_device_batch_size = self.accumulate = "auto"

    @override
    def _describe(self, trainer: pl.Trainer, module: pl.LightningModule) -> JobSpec | DerivedJob:
        job = super()._describe(trainer, module)
        size = present_batch_size(trainer, module, self._batch_size_names)
        # A loop over batch sizes launches the same training, and each launch has a batch size on purpose.
        return replace(job, only_default=size and size * trainer.world_size) if isinstance(job, DerivedJob) else job

    def _preview(self, trainer: pl.Trainer, module: pl.LightningModule, reason: str | None) -> dict[str, Any]:
        """Say what this callback would do in a fit, without a call to a server.

        Returns:
            Why it would take no part (`aside`), why it would be refused (`refused`), or the `job`, its `job_id`, and
            the `batch_size` that it must have begun with.
        """
        if reason is not None:
            return {"aside": reason}
        try:
            check_trainer(trainer, None, accumulates=False)
            self.batch_size_setter(trainer, module)
            job = self._describe(trainer, module)
            assert isinstance(job, DerivedJob)  # this callback is given none  # noqa: S101
            machine = make_meter(gpu_indices=gpu_indices(trainer.strategy.root_device)).machine
            code = as_code(job.derive(), self._metric, stop=self.stop)
        except Exception as error:
            return {"refused": f"{type(error).__name__}: {error}"}
        return {"job": code, "job_id": job.job_id(machine), "batch_size": job.only_default}

    def _stand_aside(self, why: Exception | str, *, unfit: bool = False) -> None:
        """Leave the fit to itself, and say why. Raises nothing."""
        run, self._run = self._run, None
        reason = why if isinstance(why, str) else f"{type(why).__name__}: {why}"
        with suppress(Exception):
            _warn("The training goes on without the automatic batch-size optimizer: %s", reason)
            log.debug("The automatic batch-size optimizer stands aside", exc_info=True)
        if run is not None and run.ranks.rank == 0:
            with suppress(Exception):
                run.end(reason, over=False, unfit=unfit, misconfigured=not unfit)

    def _restore(self) -> None:
        """Put back the batch size and the loaders of the training's author."""
        put_back, self._put_back = self._put_back, None
        if put_back is not None:
            put_back()


def _why_not(trainer: pl.Trainer) -> str | None:
    """Say why a Trainer's fit is none for this callback. None: it may be one."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]  # set by a connector
    if trainer.fast_dev_run:  # type: ignore[attr-defined]  # set by its debugging flags
        return "this is a fast_dev_run"
    if any(isinstance(each, ZeusBSOCallback) and not isinstance(each, AutomaticBSOCallback) for each in callbacks):
        return "the Trainer has a ZeusBSOCallback of its own"
    if any(isinstance(each, classes("callbacks:BatchSizeFinder")) for each in callbacks):
        return "a BatchSizeFinder sets the batch size"
    if isinstance(trainer.strategy.launcher, classes("strategies.launchers.multiprocessing:_MultiProcessingLauncher")):
        return "the fit runs in processes of its own, which do not know of the fits before it"
    return None


def _is_of_code(error: BaseException) -> bool:
    """Whether an error comes from the training's code, as far as can be told, and not from the machine or a tool."""
    if type(error) is RuntimeError:  # torch raises it for wrong shapes, and for much else
        return not (is_out_of_memory(error) or str(error).startswith(_FAULTS_OF_MACHINES))
    return isinstance(error, (ValueError, TypeError, LookupError, ArithmeticError, AssertionError))


def _calling_modules() -> Iterator[str]:
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        yield str(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
