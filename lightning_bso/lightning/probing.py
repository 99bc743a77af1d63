"""Time a few training steps with every batch size of a job, after a run of it that has converged.

The steps are those of a short fit of a copy (`copying.py`), so that the training that is over cannot be harmed. What
is found out is reported by `callback.py`; what becomes of it is the server's affair.
"""

import logging
import math
import signal
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from tempfile import TemporaryDirectory
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.exceptions import SIGTERMException
from lightning.pytorch.utilities.memory import garbage_collection_cuda
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lightning_bso.energy import EnergyMeter, Reading
from lightning_bso.errors import is_out_of_memory
from lightning_bso.lightning.copying import copies, left_alone, obstacle, trainer_like
from lightning_bso.lightning.dataloading import check_reached, train_loaders
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


@dataclass(slots=True)
class Probe:
    """A probe of batch sizes after a run, to be made in `Callback.on_fit_end`, when the model has left the device."""

    trainer: pl.Trainer
    module: pl.LightningModule
    placer: Placer
    """What sets the batch size of a fit."""
    batch_size: int
    """That of the run."""
    meter: EnergyMeter
    """The run's, not in use."""
    spent: Reading
    """What the run has cost."""
    epochs: int
    """That the run has taken."""
    accumulates: bool
    """Whether a larger batch is taken in parts."""
    _deadline: float = field(default=math.inf, init=False)
    _found: list["_Probed"] = field(default_factory=list, init=False)

    def run(self, batch_sizes: Sequence[int]) -> list[ProbedSize] | None:
        """What an epoch costs with each of these, by a few steps of each; those next to the run's own first.

        Nothing is raised: the training has ended well.

        Returns:
            One entry for each batch size that was reached in time. Empty where there can be no probe, or it would take
            too long beside the run, or it cannot tell, which the log says. None: somebody has interrupted it.
        """
        try:
            return self._run(batch_sizes)
        except (KeyboardInterrupt, SIGTERMException) as error:
            told = "SIGTERM" if isinstance(error, SIGTERMException) else "Ctrl-C"
            log.warning(
                "The probe of batch sizes was broken off by %s; the training was over, and fit ends as usual", told
            )
            return None
        except Exception as error:
            log.warning("The probe of batch sizes tells nothing: %s: %s", type(error).__name__, error)
            return []

    def _run(self, batch_sizes: Sequence[int]) -> list[ProbedSize]:
        most_s = MOST_SHARE * self.spent.time_s
        self._deadline = time.monotonic() + most_s
        reason = obstacle(self.trainer, self.module, accumulates=self.accumulates)
        if reason is not None or not self.epochs:
            log.warning("No probe of batch sizes: %s", reason or "the run took less than an epoch")
            return []
        # A verdict may come in the middle of an epoch, of which `epochs` counts those completed.
        begun = (self.trainer.fit_loop.epoch_loop.total_batch_idx + 1) / self.trainer.fit_loop.max_batches
        epochs = max(self.epochs, begun)
        own = Reading(self.spent.energy_j / epochs, self.spent.time_s / epochs)
        guesses_s = {size: self._guess_s(size, own.time_s) for size in batch_sizes}
        if sum(guesses_s.values()) > most_s:
            log.info(
                "No probe of batch sizes: it would take some %.0f s after a run of %.0f s",
                sum(guesses_s.values()),
                self.spent.time_s,
            )
            return []
        log.info("Probing %d batch sizes, which takes some %.0f s", len(batch_sizes), sum(guesses_s.values()))
        with isolate_rng(), _generators_kept(self.trainer), _in_silence(), left_alone(self.module):
            try:
                problem = self._time_copies(guesses_s)
            finally:
                garbage_collection_cuda()  # here the copies are gone
        if problem is not None:
            log.warning("The probe of batch sizes was broken off: %s", problem)
        return _carried_on(self._found, self.batch_size, own)

    def _guess_s(self, batch_size: int, epoch_s: float) -> float:
        """The seconds that steps with it take: with larger batches in proportion, with smaller ones up to as long."""
        step_s = epoch_s / self.trainer.fit_loop.max_batches * max(batch_size / self.batch_size, 1.0)
        return WARM_UP_STEPS * step_s + max(MEASURE_S, STEPS * step_s)

    def _time_copies(self, guesses_s: dict[int, float]) -> str | None:
        """Fit a copy with each batch size; what was found is appended, and what ended it early is told."""
        on_interrupt = signal.getsignal(signal.SIGINT)
        try:
            return self._time_in_turn(guesses_s)
        except SIGTERMException:
            raise
        except (Exception, SystemExit) as error:  # of whatever the copied module or its loaders do not like
            return f"{type(error).__name__}: {error}"
        finally:
            if signal.getsignal(signal.SIGINT) is not on_interrupt:  # Lightning has heard of one, and lets none come
                signal.signal(signal.SIGINT, on_interrupt)
            try:  # for a setter that reaches beyond the copy
                self.placer(self.trainer, self.module)(self.batch_size)
            except Exception as error:
                log.warning("The batch size may not be the run's any more: %s: %s", type(error).__name__, error)

    def _time_in_turn(self, guesses_s: dict[int, float]) -> str | None:
        copied, datamodule = copies(self.trainer, self.module)
        own, beyond_s = self.batch_size, 0.0
        sizes = sorted(guesses_s, key=lambda size: (size != own, size > own, abs(size - own)))
        for size in sizes:
            began = time.monotonic()
            if began + guesses_s[size] + beyond_s > self._deadline:
                return f"it takes longer than was foreseen, and ends before {size}"
            found = self._time_steps(size, copied, datamodule)
            beyond_s = max(beyond_s, time.monotonic() - began - guesses_s[size])
            if found is None and size == own:
                return f"too few steps could be taken with {size}"
            if found is not None and not found.fits:
                if size <= own:
                    return f"batch size {size} did not fit in memory, and {own} had; something else takes it"
                nothing = Reading(0.0, 0.0)  # larger ones do not fit either
                self._found += [found, *(_Probed(larger, nothing, None) for larger in sizes if larger > size)]
                break
            self._found += [found] if found is not None else []
        return None

    def _time_steps(
        self, batch_size: int, copied: pl.LightningModule, datamodule: pl.LightningDataModule | None
    ) -> "_Probed | None":
        """What a batch size costs; None if there were too few steps to tell."""
        source = self.trainer.fit_loop._data_source
        loader = None if source.is_module() else source.instance
        timer, fits = _Timer(self.placer, batch_size, self.meter, self._deadline), True
        garbage_collection_cuda()
        with TemporaryDirectory() as folder:
            like = trainer_like(self.trainer, timer, WARM_UP_STEPS + STEPS, folder)
            self.meter.begin()
            try:
                like.fit(copied, train_dataloaders=loader, datamodule=datamodule)
            except BaseException as error:
                if not is_out_of_memory(error):
                    with suppress(Exception):  # it may be the meter that has failed
                        self.meter.end()
                    if timer.interrupted:
                        raise KeyboardInterrupt from error  # of which Lightning has made a SystemExit
                    raise
                fits = False
            finally:
                # It has been held back and is not the probe's affair; a handler of the user's own has been called.
                if like.received_sigterm and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                    signal.raise_signal(signal.SIGTERM)
        cost = timer.finish()
        if not fits:
            return _Probed(batch_size, cost, None)
        if timer.measured is None:
            return None
        share = like.num_training_batches / timer.steps
        return _Probed(batch_size, cost, Reading(timer.measured.energy_j * share, timer.measured.time_s * share))


@dataclass(slots=True, frozen=True)
class _Probed:
    """What timing the steps of a batch size told."""

    batch_size: int
    cost: Reading
    """Of the probe itself, from the beginning of the fit to its end."""
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
        self.measured: Reading | None = None
        """Of these steps, once there have been enough."""
        self.interrupted = False
        """Whether Ctrl-C has ended the fit."""
        self._placer, self._batch_size, self._meter, self._deadline = placer, batch_size, meter, deadline
        self._began: float | None = None
        self._readings: list[Reading] = []

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
        self._check_time()

    @override
    def on_train_batch_start(self, *_: Any, **__: Any) -> None:
        self._check_time()

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        if self.measured is not None:
            return
        self.steps += 1
        if self._began is None:
            if self.steps == WARM_UP_STEPS:
                self._next_window()
                self.steps, self._began = 0, time.monotonic()
        elif self.steps >= STEPS and time.monotonic() >= min(self._began + MEASURE_S, self._deadline):
            self.measured = self._next_window()  # what the end of a fit takes is no step's
            trainer.should_stop = True

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.measured is None and self._began is not None and self.steps >= STEPS:
            self.measured = self._next_window()  # its epochs are over before there were enough seconds

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.interrupted = isinstance(exception, KeyboardInterrupt)

    def finish(self) -> Reading:
        """End what is being measured. Returns what the whole fit has cost."""
        self._end_window()
        return Reading(sum(one.energy_j for one in self._readings), sum(one.time_s for one in self._readings))

    def _check_time(self) -> None:
        if self.measured is None and time.monotonic() > self._deadline:
            raise TimeoutError(f"it takes longer than was foreseen, and ends in {self._batch_size}")

    def _next_window(self) -> Reading:
        reading = self._end_window()
        self._meter.begin()
        return reading

    def _end_window(self) -> Reading:
        reading = self._meter.end()
        if not all(math.isfinite(figure) and figure >= 0 for figure in (reading.energy_j, reading.time_s)):
            raise ValueError(f"the energy meter told {reading.energy_j} J in {reading.time_s} s")
        self._readings.append(reading)
        return reading


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
