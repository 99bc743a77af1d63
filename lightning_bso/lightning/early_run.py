"""Runs that have their batch size before the fit, for libraries that take it in a constructor.

`ask_early` asks for the batch size. In the fit, the callback asks again under the same name, and so gets the same
trial. `callback.py` uses what is here. Nothing here knows a Trainer.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from pydantic import BaseModel

from lightning_bso.energy import Machine
from lightning_bso.identity import complete_spec
from lightning_bso.lightning.families import misconfiguration
from lightning_bso.optimizer import BatchSizeOptimizer
from lightning_bso.wire import JobSpec, ReportAnswer

if TYPE_CHECKING:
    from lightning_bso.lightning.callback import ZeusBSOCallback

_VARIABLE = "_ZEUS_BSO_EARLY_RUN"
"""Tells the processes that a Trainer launches for its other devices which run the first process has asked for."""


class EarlyRun(BaseModel):
    """A run that has its batch size before the fit, as plain values."""

    run_id: str
    job: JobSpec
    """The job, with its name and its machine."""
    batch_size: int
    state: dict[str, Any]
    """What `BatchSizeOptimizer.get_batch_size` resumes from. So the fit keeps the batch size without an answer, too."""


@dataclass(slots=True)
class Shared:
    """What all copies of a callback share. A library may train with a copy of the callback that it is given."""

    optimizer: BatchSizeOptimizer | None = None
    """The optimizer of the latest fit."""
    early_run: EarlyRun | None = None
    """The run of the `with` block that the program is in."""
    has_fit: bool = False
    """Whether a fit has taken over the run of the block."""

    def __deepcopy__(self, _: Any) -> Self:
        return self

    def __reduce__(self) -> tuple[type[Self], tuple[None, EarlyRun | None, bool]]:
        # Not the optimizer: it knows the token, and a library may save its callbacks with a model.
        return type(self), (None, self.early_run, self.has_fit)


@dataclass(frozen=True, slots=True)
class Run:
    """A run whose batch size is known before the model exists. See `ZeusBSOCallback.run`."""

    batch_size: int
    """Global batch size to train with."""
    callback: ZeusBSOCallback
    """The callback for the Trainer."""
    _shared: Shared

    @property
    def result(self) -> ReportAnswer | None:
        """The verdict that ended the run, or None before the verdict."""
        return self._shared.optimizer.result if self._shared.optimizer else None


@contextmanager
def ask_early(
    shared: Shared, make_optimizer: Callable[[], BatchSizeOptimizer], job: JobSpec, run_id: str | None
) -> Iterator[EarlyRun]:
    """Ask for the batch size of a run whose fit comes within the block. Without a fit, the block's end ends the run.

    Args:
        shared: what the callback of the fit shares with its copies. It holds the run during the block.
        make_optimizer: creates the optimizer that asks.
        job: the job as the user described it.
        run_id: the name that the user gave the run, if any.

    Raises:
        MisconfigurationException: several processes ask, and have no common name for the run.
        BSOError: as from `BatchSizeOptimizer.get_batch_size`.
    """
    optimizer, run = None, _inherited_run()
    if run is None:
        _check_name(run_id)
        optimizer = make_optimizer()
        run = _ask(optimizer, job)
    shared.optimizer, shared.early_run, shared.has_fit = None, run, False
    try:
        with _bequeathed(run):
            yield run
    except BaseException as error:
        if optimizer is not None and not shared.has_fit:
            optimizer.abandon(error)
        raise
    else:
        if optimizer is not None and not shared.has_fit:
            optimizer.finish("the with block ended without a fit")
    finally:
        shared.early_run = None


def _ask(optimizer: BatchSizeOptimizer, job: JobSpec) -> EarlyRun:
    batch_size, machine = optimizer.get_batch_size(), optimizer.machine
    if machine is not None:
        job = JobSpec.model_validate(complete_spec(job, machine).model_dump())
    return EarlyRun(run_id=optimizer.run_id, job=job, batch_size=batch_size, state=optimizer.state_dict())


def _inherited_run() -> EarlyRun | None:
    """Return the run of the first process, if its Trainer has launched this process for another device."""
    run = os.environ.get(_VARIABLE)
    return EarlyRun.model_validate_json(run) if run and os.environ.get("LOCAL_RANK", "0") != "0" else None


@contextmanager
def _bequeathed(run: EarlyRun) -> Iterator[None]:
    """Tell the processes that this one launches about its run."""
    os.environ[_VARIABLE] = run.model_dump_json()
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE, None)


def _check_name(run_id: str | None) -> None:
    """Refuse a process that asks beside others, and does not know what name they ask by."""
    # Lightning sets the first two in all ranks that it launches, torchrun in all, and srun the last.
    alone = {"LOCAL_RANK": "0", "WORLD_SIZE": "1", "SLURM_STEP_NUM_TASKS": "1"}
    is_one_of_several = any(os.environ.get(name, value) != value for name, value in alone.items())
    if run_id is None and is_one_of_several:
        raise misconfiguration(
            "run() is called by several processes (of torchrun, of srun, or launched by an earlier fit), which must "
            "ask for the same run. Give ZeusBSOCallback(…) a run_id that they share and no other run has"
        )


def check_machine(early_run: EarlyRun, job: JobSpec, machine: Machine | None) -> None:
    """Check that a fit runs on the GPUs that its batch size was asked for.

    Args:
        early_run: the run.
        job: the job as the user described it. The machine's fields that it gives are not checked.
        machine: the machine of the fit. None: another process checks it.

    Raises:
        MisconfigurationException: the fit runs on others.
    """
    if machine is None:
        return
    asked, fits = early_run.job, machine
    if (job.gpu_model is None and asked.gpu_model != fits.gpu_model) or (
        job.number_of_gpus is None and asked.number_of_gpus != fits.number_of_gpus
    ):
        raise misconfiguration(
            f"run() asked for a run on {asked.number_of_gpus} x {asked.gpu_model}, but the fit runs on "
            f"{fits.number_of_gpus} x {fits.gpu_model}. Give run(gpu_indices=[…]) the GPUs of the fit, or an empty "
            "list for the CPU"
        )
