"""Times a few training steps with every batch size of a job, after one of its runs has converged.

The steps belong to a short fit of a copy (`copying.py`), so they cannot harm the finished training. `callback.py`
starts the probe and reports its results. The server decides how to use them.
"""

from __future__ import annotations

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
from typing import TYPE_CHECKING, Any

import torch
from typing_extensions import override

from lightning_bso.energy import EnergyMeter, Reading
from lightning_bso.errors import is_out_of_memory
from lightning_bso.lightning.copying import copy_modules, find_obstacle, trainer_like, unchanged_tensors
from lightning_bso.lightning.dataloading import train_loaders
from lightning_bso.lightning.families import Callback, classes, family_of, find, loaded
from lightning_bso.wire import ProbedSize

if TYPE_CHECKING:
    import lightning.pytorch as pl

log = logging.getLogger(__name__)

SetterFactory = Callable[["pl.Trainer", "pl.LightningModule"], Callable[[int], int]]
"""Creates, in a fit's `setup`, the function that sets a device's batch size and returns its loader's batch size."""

WARM_UP_STEPS = 3
"""Steps without measurement: the first steps allocate memory and choose kernels."""
MIN_STEPS, MIN_MEASURE_S = 10, 1.0
"""A measurement takes at least this many steps and seconds. A GPU updates its energy counter every 0.1 s."""
MAX_SHARE = 0.02
"""Upper bound of the probe's time, as a share of the run's time. A longer probe does not start, or stops early."""


@dataclass(slots=True)
class Probe:
    """A probe of batch sizes after a run. Run it in `Callback.on_fit_end`, when the model has left the device."""

    trainer: pl.Trainer
    module: pl.LightningModule
    make_setter: SetterFactory
    """Creates the function that sets the batch size of a fit."""
    check_loaders: Callable[[pl.Trainer, int], None]
    """Raises an error if the train loaders do not have this batch size."""
    batch_size: int
    """The run's batch size."""
    meter: EnergyMeter
    """The run's meter, which must not be in use."""
    spent: Reading
    """Energy and time of the run."""
    epochs: int
    """Epochs that the run has completed."""
    accumulates: bool
    """Whether larger batches are split into parts."""
    _deadline: float = field(default=math.inf, init=False)
    _measurements: list[_Measurement] = field(default_factory=list, init=False)

    def run(self, batch_sizes: Sequence[int]) -> list[ProbedSize] | None:
        """Measure the cost of an epoch with each batch size. Raises nothing: the training has already succeeded.

        The run's batch size comes first, then the smaller and then the larger batch sizes, from the nearest on.

        Returns:
            One entry for each batch size that was measured in time. Empty if a probe is not possible, takes too long
            compared with the run, or fails; the log gives the reason. None if Ctrl-C or SIGTERM interrupts the probe.
        """
        try:
            return self._run(batch_sizes)
        except self._interrupts as error:
            log.warning(
                "The probe of batch sizes was interrupted by %s. The training was over, and fit ends normally",
                "Ctrl-C" if isinstance(error, KeyboardInterrupt) else "SIGTERM",
            )
            return None
        except Exception as error:
            log.warning("The probe of batch sizes failed: %s: %s", type(error).__name__, error)
            return []

    def _run(self, batch_sizes: Sequence[int]) -> list[ProbedSize]:
        limit_s = MAX_SHARE * self.spent.time_s
        self._deadline = time.monotonic() + limit_s
        reason = find_obstacle(self.trainer, self.module, accumulates=self.accumulates)
        if reason is not None or not self.epochs:
            log.warning("No probe of batch sizes: %s", reason or "the run took less than an epoch")
            return []
        # `epochs` counts completed epochs only, but a verdict may come in the middle of an epoch.
        epochs_begun = (self.trainer.fit_loop.epoch_loop.total_batch_idx + 1) / self.trainer.fit_loop.max_batches
        epochs = max(self.epochs, epochs_begun)
        run_epoch = Reading(self.spent.energy_j / epochs, self.spent.time_s / epochs)
        estimates_s = {size: self._estimate_s(size, run_epoch.time_s) for size in batch_sizes}
        estimate_s = sum(estimates_s.values())
        if estimate_s > limit_s:
            log.info(
                "No probe of batch sizes: it would take about %.0f s after a run of %.0f s",
                estimate_s,
                self.spent.time_s,
            )
            return []
        log.info("Probing %d batch sizes, which takes about %.0f s", len(batch_sizes), estimate_s)
        isolated_rng = find(family_of(self.trainer), "utilities.seed:isolate_rng")()
        with isolated_rng, _lightning_silenced(), _unchanged_generators(self.trainer), unchanged_tensors(self.module):
            try:
                problem = self._measure_copy(estimates_s)
            finally:
                self._free_memory()  # no copy exists any more
        if problem is not None:
            log.warning("The probe of batch sizes stopped early: %s", problem)
        return _to_probed_sizes(self._measurements, self.batch_size, run_epoch)

    @property
    def _interrupts(self) -> tuple[Any, ...]:
        """The classes of the errors with which Ctrl-C and SIGTERM end a fit."""
        return (KeyboardInterrupt, *classes("utilities.exceptions:SIGTERMException"))

    def _free_memory(self) -> None:
        find(family_of(self.trainer), "utilities.memory:garbage_collection_cuda")()

    def _estimate_s(self, batch_size: int, epoch_s: float) -> float:
        """Estimate the seconds for the steps with a batch size.

        A step with a larger batch takes proportionally longer. A step with a smaller batch takes at most the run's
        step time.
        """
        step_s = epoch_s / self.trainer.fit_loop.max_batches * max(batch_size / self.batch_size, 1.0)
        return WARM_UP_STEPS * step_s + max(MIN_MEASURE_S, MIN_STEPS * step_s)

    def _measure_copy(self, estimates_s: dict[int, float]) -> str | None:
        """Fit a copy with each batch size, and append the measurements. Return why it stopped early, if it did."""
        interrupt_handler = signal.getsignal(signal.SIGINT)
        try:
            return self._measure_in_turn(estimates_s)
        except self._interrupts:
            raise
        except (Exception, SystemExit) as error:  # the copied module or its loaders may raise anything
            return f"{type(error).__name__}: {error}"
        finally:
            # After a Ctrl-C Lightning ignores all further ones.
            if signal.getsignal(signal.SIGINT) is not interrupt_handler:
                signal.signal(signal.SIGINT, interrupt_handler)
            try:  # a setter may also change objects outside of the copy
                self.make_setter(self.trainer, self.module)(self.batch_size)
            except Exception as error:
                log.warning(
                    "The probe could not restore the run's batch size of %d: %s: %s",
                    self.batch_size,
                    type(error).__name__,
                    error,
                )

    def _measure_in_turn(self, estimates_s: dict[int, float]) -> str | None:
        module, datamodule = copy_modules(self.trainer, self.module)
        run_size, max_overrun_s = self.batch_size, 0.0
        sizes = sorted(estimates_s, key=lambda size: (size != run_size, size > run_size, abs(size - run_size)))
        for size in sizes:
            started = time.monotonic()
            if started + estimates_s[size] + max_overrun_s > self._deadline:
                return f"it takes longer than estimated, and ends before batch size {size}"
            measurement = self._measure(size, module, datamodule)
            max_overrun_s = max(max_overrun_s, time.monotonic() - started - estimates_s[size])
            if measurement is None and size == run_size:
                return f"too few training steps ran with batch size {size}"
            if measurement is not None and not measurement.fits:
                if size <= run_size:
                    return (
                        f"batch size {size} did not fit in memory, but the run's batch size {run_size} did; something "
                        "else uses the memory"
                    )
                no_cost = Reading(0.0, 0.0)  # larger batch sizes do not fit either
                self._measurements += [
                    measurement,
                    *(_Measurement(larger, no_cost, None) for larger in sizes if larger > size),
                ]
                break
            self._measurements += [measurement] if measurement is not None else []
        return None

    def _measure(
        self, batch_size: int, module: pl.LightningModule, datamodule: pl.LightningDataModule | None
    ) -> _Measurement | None:
        """Measure what a batch size costs. Return None if there were too few steps."""
        source = self.trainer.fit_loop._data_source
        loader = None if source.is_module() else source.instance
        timer, fits = _Timer(self.make_setter, self.check_loaders, batch_size, self.meter, self._deadline), True
        self._free_memory()
        with TemporaryDirectory() as folder:
            probe_trainer = trainer_like(self.trainer, timer, WARM_UP_STEPS + MIN_STEPS, folder)
            self.meter.begin()
            try:
                probe_trainer.fit(module, train_dataloaders=loader, datamodule=datamodule)
            except BaseException as error:
                if not is_out_of_memory(error):
                    with suppress(Exception):  # the meter itself may have failed
                        self.meter.end()
                    if timer.interrupted:
                        raise KeyboardInterrupt from error  # Lightning turned the interrupt into a SystemExit
                    raise
                fits = False
            finally:
                # Lightning holds SIGTERM back, and this process must still get it. A user's handler has already run.
                if probe_trainer.received_sigterm and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
                    signal.raise_signal(signal.SIGTERM)
        cost = timer.finish()
        if not fits:
            return _Measurement(batch_size, cost, None)
        if timer.measured is None:
            return None
        share = probe_trainer.num_training_batches / timer.steps
        epoch = Reading(timer.measured.energy_j * share, timer.measured.time_s * share)
        return _Measurement(batch_size, cost, epoch)


@dataclass(slots=True, frozen=True)
class _Measurement:
    """The result of timing the steps of a batch size."""

    batch_size: int
    cost: Reading
    """Cost of the measurement itself, from the start of its fit to the end."""
    epoch: Reading | None
    """Cost of all training batches of an epoch, without its validation, or None if the batch does not fit in memory."""

    @property
    def fits(self) -> bool:
        """Whether the batch size fits in memory."""
        return self.epoch is not None


class _Timer(Callback):
    """Sets a batch size, measures the steps after the warm-up, and stops the fit after enough steps."""

    def __init__(
        self,
        make_setter: SetterFactory,
        check_loaders: Callable[[pl.Trainer, int], None],
        batch_size: int,
        meter: EnergyMeter,
        deadline: float,
    ) -> None:
        self.steps = 0
        """Steps after the warm-up."""
        self.measured: Reading | None = None
        """Energy and time of these steps, or None before there are enough."""
        self.interrupted = False
        """Whether Ctrl-C has ended the fit."""
        self._check_loaders = check_loaders
        self._make_setter, self._batch_size, self._meter, self._deadline = make_setter, batch_size, meter, deadline
        self._started: float | None = None
        self._readings: list[Reading] = []

    @override
    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        self._loader_size = self._make_setter(trainer, pl_module)(self._batch_size)

    @override
    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._check_loaders(trainer, self._loader_size)
        for config in trainer.lr_scheduler_configs:
            config.frequency = sys.maxsize  # no step: the metric or the number of steps is another training's

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
        if self._started is None:
            if self.steps == WARM_UP_STEPS:
                self._next_window()
                self.steps, self._started = 0, time.monotonic()
        elif self.steps >= MIN_STEPS and time.monotonic() >= min(self._started + MIN_MEASURE_S, self._deadline):
            self.measured = self._next_window()  # a new window, because the end of a fit is not a step
            trainer.should_stop = True

    @override
    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.measured is None and self._started is not None and self.steps >= MIN_STEPS:
            self.measured = self._next_window()  # the last epoch ended before there were enough seconds

    @override
    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self.interrupted = isinstance(exception, KeyboardInterrupt)

    def finish(self) -> Reading:
        """End the open measurement window, and return energy and time of the whole fit."""
        self._end_window()
        energy_j = sum(reading.energy_j for reading in self._readings)
        return Reading(energy_j, sum(reading.time_s for reading in self._readings))

    def _check_time(self) -> None:
        if self.measured is None and time.monotonic() > self._deadline:
            raise TimeoutError(f"it takes longer than estimated, and ends during batch size {self._batch_size}")

    def _next_window(self) -> Reading:
        reading = self._end_window()
        self._meter.begin()
        return reading

    def _end_window(self) -> Reading:
        reading = self._meter.end()
        if not all(math.isfinite(value) and value >= 0 for value in (reading.energy_j, reading.time_s)):
            raise ValueError(f"the energy meter returned {reading.energy_j} J in {reading.time_s} s")
        self._readings.append(reading)
        return reading


@contextmanager
def _unchanged_generators(trainer: pl.Trainer) -> Iterator[None]:
    """Restore the generators that a fit's own loaders shuffle with."""
    loaders = train_loaders(trainer)
    samplers = [getattr(loader, name, None) for loader in loaders for name in ("sampler", "batch_sampler")]
    generators = [getattr(holder, "generator", None) for holder in (*loaders, *samplers)]
    states = [(generator, generator.get_state()) for generator in generators if isinstance(generator, torch.Generator)]
    try:
        yield
    finally:
        for generator, state in states:
            generator.set_state(state)


@contextmanager
def _lightning_silenced() -> Iterator[None]:
    """Suppress Lightning's messages about every fit. They would look like messages about the training."""
    # Some messages of a family go to the logger of another, see `families`.
    levels = {log: log.level for log in map(logging.getLogger, loaded())}
    for lightning_log in levels:
        lightning_log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for lightning_log, level in levels.items():
            lightning_log.setLevel(level)


def _to_probed_sizes(measurements: list[_Measurement], batch_size: int, run_epoch: Reading) -> list[ProbedSize]:
    """Extrapolate to whole epochs: the cost of the run's epoch, plus the difference in the cost of its training steps.

    Empty if the run's own batch size was not measured.
    """
    training = next((each.epoch for each in measurements if each.batch_size == batch_size), None)
    if training is None:
        return []
    rest = Reading(max(run_epoch.energy_j - training.energy_j, 0.0), max(run_epoch.time_s - training.time_s, 0.0))
    return [
        ProbedSize(
            batch_size=each.batch_size,
            fits=each.epoch is not None,
            epoch_energy=each.epoch.energy_j + rest.energy_j if each.epoch else 0.0,
            epoch_time=each.epoch.time_s + rest.time_s if each.epoch else 0.0,
            energy=each.cost.energy_j,
            time=each.cost.time_s,
        )
        for each in measurements
        if each.epoch is None or each.epoch.time_s > 0
    ]
