"""Time a few training steps with every batch size of a job, after a run of it that has converged.

The steps are those of a short fit of a copy: of the module, in a Trainer of its own, so that the training that is over
cannot be harmed. What is found out is reported by `callback.py`; what becomes of it is the server's affair.
"""

import copy
import logging
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.strategies import SingleDeviceStrategy
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from lightning.pytorch.utilities.seed import isolate_rng
from torch.utils.data import DataLoader, Dataset
from typing_extensions import override

from lightning_bso.dataloading import check_reached, train_loaders
from lightning_bso.energy import EnergyMeter, Reading
from lightning_bso.errors import is_out_of_memory
from lightning_bso.wire import ProbedSize

log = logging.getLogger(__name__)

Placer = Callable[[pl.Trainer, pl.LightningModule], Callable[[int], int]]
"""Called in a fit's `setup`: what puts a device's batch size in place, and says how much of it a loader batch holds."""

WARM_UP_STEPS = 3
"""Not measured: the first ones allocate memory and choose kernels."""
STEPS, MEASURE_S = 10, 1.0
"""A batch size is measured for at least so many steps and seconds; counters of GPUs move every tenth of a second."""
MOST_SHARE = 0.02
"""Of the run's time: a probe that would take longer is not begun, and one that does is broken off."""


def probe(
    trainer: pl.Trainer,
    module: pl.LightningModule,
    placer: Placer,
    batch_size: int,
    batch_sizes: Sequence[int],
    meter: EnergyMeter,
    spent: Reading,
    epochs: int,
) -> list[ProbedSize]:
    """What an epoch costs with each batch size, by a few steps of each; smaller ones first.

    Args:
        trainer: the trainer in `Callback.on_fit_end`, when its model has left the device.
        module: the module that was trained.
        placer: what sets the batch size of a fit.
        batch_size: that of the run.
        batch_sizes: those to be probed.
        meter: the run's energy meter, not in use.
        spent: what the run has cost.
        epochs: the epochs that it has taken.

    Returns:
        One entry for each batch size that was reached in time. Empty where a probe would take too long beside the run
        or cannot tell, which the log says; nothing that the copy's training does is raised.
    """
    obstacle = _obstacle(trainer, module) if epochs else "the run took less than an epoch"
    if obstacle is not None:
        log.warning("No probe of batch sizes: %s", obstacle)
        return []
    # A verdict may come in the middle of an epoch, of which `epochs` counts those completed.
    begun = (trainer.fit_loop.epoch_loop.total_batch_idx + 1) / trainer.fit_loop.max_batches
    own = Reading(spent.energy_j / max(epochs, begun), spent.time_s / max(epochs, begun))
    guess_s, most_s = _guess_s(trainer, batch_size, batch_sizes, own.time_s), MOST_SHARE * spent.time_s
    if guess_s > most_s:
        log.info("No probe of batch sizes: it would take some %.0f s after a run of %.0f s", guess_s, spent.time_s)
        return []
    log.info("Probing %d batch sizes, which takes some %.0f s", len(batch_sizes), guess_s)
    found: list[_Probed] = []
    with isolate_rng(), _generators_kept(trainer), _in_silence():
        deadline = time.monotonic() + most_s
        problem = _time_copies(found, trainer, module, placer, batch_size, sorted(batch_sizes), meter, deadline)
    if problem is not None:
        log.warning("The probe of batch sizes was broken off: %s", problem)
    if any(not one.fits for one in found if one.batch_size <= batch_size):
        # The run has trained with it, so something else takes the memory.
        log.warning("The probe of batch sizes tells nothing: batch size %d did not fit, and had fitted", batch_size)
        return []
    return _carried_on(found, batch_size, own)


@dataclass(slots=True, frozen=True)
class _Probed:
    """What timing the steps of a batch size told."""

    batch_size: int
    cost: Reading
    """Of the probe itself."""
    epoch: Reading | None
    """Of all training batches of an epoch, without its validation; None: it does not fit in memory."""

    @property
    def fits(self) -> bool:
        """Whether it fits in memory."""
        return self.epoch is not None


class _Timer(pl.Callback):
    """Sets a batch size, measures the steps after the warm-up, and ends the training when it has seen enough."""

    def __init__(self, placer: Placer, batch_size: int, meter: EnergyMeter, deadline: float) -> None:
        self.steps = 0
        """After the warm-up."""
        self.warm_up = self.measured = Reading(0.0, 0.0)
        self._placer, self._batch_size, self._meter, self._deadline = placer, batch_size, meter, deadline
        self._began: float | None = None

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._loader_size = self._placer(trainer, pl_module)(self._batch_size)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        check_reached(trainer, self._loader_size)
        for config in trainer.lr_scheduler_configs:
            config.frequency = sys.maxsize  # never: what they wait for, or are made for, is another training's

    @override
    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or time.monotonic() > self._deadline

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.steps += 1
        now = time.monotonic()
        if self._began is None:
            if self.steps == WARM_UP_STEPS:
                self.steps, self.warm_up, self._began = 0, self._read(), now
                self._meter.begin()
        elif self.steps >= STEPS and now - self._began >= MEASURE_S:
            trainer.should_stop = True
        trainer.should_stop = trainer.should_stop or now > self._deadline

    def finish(self) -> None:
        """End what is being measured."""
        reading = self._read()
        if self._began is None:
            self.steps, self.warm_up = 0, reading
        else:
            self.measured = reading

    def _read(self) -> Reading:
        reading = self._meter.end()
        if not (reading.energy_j >= 0 and reading.time_s >= 0):
            raise ValueError(f"the energy meter told {reading.energy_j} J in {reading.time_s} s")
        return reading


def _obstacle(trainer: pl.Trainer, module: pl.LightningModule) -> str | None:
    """Why a short fit of a copy would not be like this fit; None if it would."""
    batches = trainer.fit_loop.max_batches
    if not isinstance(batches, int) or batches == 0:
        return "the number of batches in an epoch is not known"
    if type(trainer.strategy) is not SingleDeviceStrategy:
        return "it is made where one process trains on one device"
    if getattr(module, "_compiler_ctx", None) is not None:
        return "a module that torch.compile has wrapped cannot be copied; compile in configure_model"
    return None


def _guess_s(trainer: pl.Trainer, batch_size: int, batch_sizes: Sequence[int], epoch_s: float) -> float:
    """The seconds that a probe takes at most, where larger batches take longer in proportion."""
    step_s = [epoch_s / trainer.fit_loop.max_batches * size / batch_size for size in batch_sizes]
    return sum(WARM_UP_STEPS * one + max(MEASURE_S, STEPS * one) for one in step_s)


def _time_copies(
    found: list[_Probed],
    trainer: pl.Trainer,
    module: pl.LightningModule,
    placer: Placer,
    batch_size: int,
    batch_sizes: Sequence[int],
    meter: EnergyMeter,
    deadline: float,
) -> str | None:
    """Fit a copy with each batch size; what was found is appended, and what ended it early is told."""
    source = trainer.fit_loop._data_source
    loader = None if source.is_module() else source.instance
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        copied, datamodule = _copies(trainer, module)
        for size in batch_sizes:
            if time.monotonic() > deadline:
                return f"it takes longer than was foreseen, and ends before {size}"
            with TemporaryDirectory() as folder:
                like = _trainer_like(trainer, timer := _Timer(placer, size, meter, deadline), folder)
                fitted = _time_steps(like, copied, loader, datamodule, timer, meter)
            if fitted is not None:
                found.append(_Probed(size, *fitted))
                if not found[-1].fits:  # larger ones do not either
                    nothing = Reading(0.0, 0.0)
                    found += [_Probed(larger, nothing, None) for larger in batch_sizes if larger > size]
                    break
    except Exception as error:  # of whatever the copied module or its loaders do not like
        return f"{type(error).__name__}: {error}"
    except SystemExit:  # Lightning's way to end a fit after Ctrl-C, from when on it hears of no other
        signal.signal(signal.SIGINT, on_interrupt)
        return "interrupted; the training was over and goes on to its end"
    finally:
        if source.is_module():  # for a setter that reaches beyond the copy
            placer(trainer, module)(batch_size)
    return None


def _time_steps(
    like: pl.Trainer,
    copied: pl.LightningModule,
    loader: Any,
    datamodule: pl.LightningDataModule | None,
    timer: _Timer,
    meter: EnergyMeter,
) -> tuple[Reading, Reading | None] | None:
    """What probing a batch size cost, and what an epoch would (None: no memory); None if there were too few steps."""
    garbage_collection_cuda()
    meter.begin()
    fits = True
    try:
        like.fit(copied, train_dataloaders=loader, datamodule=datamodule)
    except BaseException as error:
        if not (is_oom_error(error) or is_out_of_memory(error)):
            with suppress(Exception):  # it may be the meter that has failed
                meter.end()
            raise
        fits = False
    finally:
        if like.received_sigterm:
            signal.raise_signal(signal.SIGTERM)  # which has been held back, and is not the probe's affair
    timer.finish()
    cost = Reading(timer.warm_up.energy_j + timer.measured.energy_j, timer.warm_up.time_s + timer.measured.time_s)
    if not fits:
        return cost, None
    if timer.steps < STEPS:
        return None
    share = like.num_training_batches / timer.steps
    return cost, Reading(timer.measured.energy_j * share, timer.measured.time_s * share)


def _trainer_like(trainer: pl.Trainer, timer: _Timer, folder: str) -> pl.Trainer:
    """A Trainer that steps as this one does, and does nothing else; what is written, goes to a folder of its own."""
    device: torch.device = trainer.strategy.root_device
    return pl.Trainer(
        accelerator=device.type,
        devices=[device.index] if device.type == "cuda" else 1,
        # Not Slurm's environment: preempted, it would save the copy as the run, and begin with what the run has saved.
        plugins=[copy.deepcopy(trainer.precision_plugin), LightningEnvironment()],
        accumulate_grad_batches=trainer.accumulate_grad_batches,
        gradient_clip_val=trainer.gradient_clip_val,
        gradient_clip_algorithm=trainer.gradient_clip_algorithm,
        limit_train_batches=trainer.limit_train_batches,
        overfit_batches=trainer.overfit_batches,  # type: ignore[attr-defined]  # set by its debugging flags
        max_epochs=max(trainer.max_epochs or 0, WARM_UP_STEPS + STEPS),
        limit_val_batches=0,
        logger=DummyLogger() if trainer.loggers else False,
        callbacks=[timer],
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )


def _copies(
    trainer: pl.Trainer, module: pl.LightningModule
) -> tuple[pl.LightningModule, pl.LightningDataModule | None]:
    """The module and its datamodule once more, set up as they are; the data themselves are shared."""
    datamodule: pl.LightningDataModule | None = trainer.datamodule  # type: ignore[attr-defined]  # set by a connector
    shared = {id(trainer): None} | {
        id(value): value
        for holder in (module, datamodule)
        for value in (vars(holder).values() if holder is not None else ())
        if isinstance(value, Dataset | DataLoader)
    }
    copies = copy.deepcopy((module, datamodule), shared)
    for part in copies:
        if part is not None:
            vars(part).update(dict.fromkeys(_OF_WHOLE_TRAININGS, _do_nothing))
    vars(copies[0]).update(configure_callbacks=list)  # none: they are for a whole training
    return copies


_OF_WHOLE_TRAININGS = (
    *("prepare_data", "setup", "teardown"),  # has been done, and may take long
    *("on_train_epoch_end", "on_train_end", "on_fit_end", "on_exception"),  # may write down what was trained
)
"""Hooks that do not run again in a probe."""


def _do_nothing(*_: Any, **__: Any) -> None:
    """Stands for a hook that is not to run again."""


@contextmanager
def _generators_kept(trainer: pl.Trainer) -> Iterator[None]:
    """Put back the generators that a fit's own loaders shuffle with."""
    loaders = train_loaders(trainer)
    holders = [getattr(loader, name, None) for loader in loaders for name in ("sampler", "batch_sampler")]
    found = [getattr(holder, "generator", None) for holder in (*loaders, *holders)]
    states = [(generator, generator.get_state()) for generator in found if isinstance(generator, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


@contextmanager
def _in_silence() -> Iterator[None]:
    """Keep back what Lightning says of every fit; it would be taken for the training's own."""
    lightning_log = logging.getLogger("lightning.pytorch")
    level = lightning_log.level
    lightning_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        lightning_log.setLevel(level)


def _carried_on(found: list[_Probed], batch_size: int, own: Reading) -> list[ProbedSize]:
    """What a whole epoch costs: as the run's own, with the difference that the batch size makes to its training."""
    training = next((one.epoch for one in found if one.batch_size == batch_size), None)
    if training is None:
        return []
    rest = Reading(max(own.energy_j - training.energy_j, 0.0), max(own.time_s - training.time_s, 0.0))
    return [
        ProbedSize(
            batch_size=one.batch_size,
            fits=one.epoch is not None,
            epoch_energy=one.epoch.energy_j + rest.energy_j if one.epoch else 0.0,
            epoch_time=one.epoch.time_s + rest.time_s if one.epoch else 0.0,
            energy=one.cost.energy_j,
            time=one.cost.time_s,
        )
        for one in found
        if one.epoch is None or one.epoch.time_s > 0
    ]
