"""Time a few training steps with every batch size of a job, after its first run, and leave no trace of it.

The steps are Lightning's own, by the fit's own loop, as in its BatchSizeFinder: the whole state (weights, optimizers,
precision, progress, random numbers, metrics) is kept before and put back after. What is found out is reported by
`callback.py`; what becomes of it is the server's affair.
"""

import logging
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers.logger import DummyLogger
from lightning.pytorch.trainer.connectors.logger_connector.result import _ResultCollection
from lightning.pytorch.utilities.memory import garbage_collection_cuda, is_oom_error
from lightning.pytorch.utilities.seed import isolate_rng
from typing_extensions import override

from lightning_bso.energy import EnergyMeter, Reading
from lightning_bso.wire import ProbedSize

log = logging.getLogger(__name__)

WARM_UP_STEPS = 3
"""Not measured: the first ones allocate memory and choose kernels."""
STEPS, MEASURE_S = 10, 1.0
"""A batch size is measured for at least so many steps and seconds; counters of GPUs move every tenth of a second."""
MOST_SHARE = 0.02
"""Of the run's time: a probe that would take longer is not begun, and one that does is broken off."""


def probe(
    trainer: pl.Trainer,
    set_batch_size: Callable[[int], None],
    batch_size: int,
    batch_sizes: Sequence[int],
    meter: EnergyMeter,
    spent: Reading,
    epochs: int,
) -> list[ProbedSize]:
    """What an epoch costs with each batch size, by a few steps of each; smaller ones first.

    Args:
        trainer: the trainer in `Callback.on_fit_end`.
        set_batch_size: what sets the batch size of the training data.
        batch_size: that of the run.
        batch_sizes: those to be probed.
        meter: the run's energy meter, not in use.
        spent: what the run has cost.
        epochs: the epochs that it has taken.

    Returns:
        One entry for each batch size that was reached in time. Empty where a probe would take too long beside the run,
        or an epoch has no known number of batches.
    """
    batches = trainer.fit_loop.max_batches
    if not isinstance(batches, int) or batches == 0 or epochs == 0:
        return []
    most_s = MOST_SHARE * spent.time_s
    step_s = spent.time_s / epochs / batches
    guess_s = 0.0
    for size in batch_sizes:
        size_s = step_s * size / batch_size  # at most, where larger batches take longer
        guess_s += WARM_UP_STEPS * size_s + max(MEASURE_S, STEPS * size_s)
    if guess_s > most_s:
        log.info("No probe of batch sizes: it would take some %.0f s after a run of %.0f s", guess_s, spent.time_s)
        return []
    log.info("Probing %d batch sizes, which takes some %.0f s", len(batch_sizes), guess_s)
    deadline = time.monotonic() + most_s
    found: list[_Probed] = []
    with _state_kept(trainer, set_batch_size, batch_size):
        for size in sorted(batch_sizes):
            if time.monotonic() > deadline:
                log.warning("The probe of batch sizes takes longer than was foreseen, and ends before %d", size)
                break
            set_batch_size(size)
            found.append(_time_steps(trainer, meter, size))
            if not found[-1].fits:  # larger ones do not either
                found += [_Probed(larger, fits=False) for larger in batch_sizes if larger > size]
                break
    return _carried_on(found, batch_size, spent, epochs)


@dataclass(slots=True)
class _Probed:
    """What timing the steps of a batch size told. `epoch`: of all its training batches, no validation."""

    batch_size: int
    fits: bool
    epoch: Reading = field(default_factory=lambda: Reading(0.0, 0.0))
    cost: Reading = field(default_factory=lambda: Reading(0.0, 0.0))


class _StepTimer(pl.Callback):
    """Measures the steps after the warm-up, and ends the training when it has seen enough of them."""

    def __init__(self, meter: EnergyMeter) -> None:
        self.windows: list[Reading] = []
        """What was used: by the warm-up, and after it."""
        self.steps = 0
        self._meter = meter
        self._began = 0.0

    def begin(self) -> None:
        """Begin a window."""
        self._meter.begin()
        self._began = time.monotonic()

    def end(self) -> None:
        """End the window."""
        self.windows.append(self._meter.end())

    @override
    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any, **__: Any) -> None:
        self.steps += 1
        if self.steps == WARM_UP_STEPS:
            self.end()
            self.begin()
        elif self.steps >= WARM_UP_STEPS + STEPS and time.monotonic() - self._began >= MEASURE_S:
            trainer.should_stop = True


def _time_steps(trainer: pl.Trainer, meter: EnergyMeter, batch_size: int) -> _Probed:
    loop, timer = trainer.fit_loop, _StepTimer(meter)
    trainer.callbacks = [timer]  # type: ignore[attr-defined]
    trainer.should_stop = False
    loop._combined_loader = None
    garbage_collection_cuda()
    fits = True
    timer.begin()
    try:
        loop.setup_data()
        while loop.max_batches and not trainer.should_stop:
            loop.on_advance_start()
            loop.advance()
    except RuntimeError as error:
        if not is_oom_error(error):
            raise
        fits = False
    finally:
        timer.end()
    measured, steps = timer.windows[-1], timer.steps - WARM_UP_STEPS
    cost = Reading(sum(one.energy_j for one in timer.windows), sum(one.time_s for one in timer.windows))
    if not fits or steps <= 0:
        return _Probed(batch_size, fits=fits, cost=cost)
    share = loop.max_batches / steps
    return _Probed(batch_size, True, Reading(measured.energy_j * share, measured.time_s * share), cost)


@contextmanager
def _state_kept(trainer: pl.Trainer, set_batch_size: Callable[[int], None], batch_size: int) -> Iterator[None]:
    """Let the trainer go on training without anybody noticing, and put everything back afterwards."""
    loop, connector = trainer.fit_loop, trainer._logger_connector
    _ = trainer.callback_metrics  # collects what the last steps have logged
    kept = [
        *((trainer, name) for name in ("loggers", "should_stop", "limit_val_batches", "val_check_batch")),
        *((loop, name) for name in ("_combined_loader", "_data_fetcher", "max_batches", "_last_train_dl_reload_epoch")),
        *((loop.epoch_loop, name) for name in ("max_steps", "_results")),
        (loop, "max_epochs"),
        (trainer.strategy, "lr_scheduler_configs"),
        *((connector, name) for name in ("_callback_metrics", "_logged_metrics", "_progress_bar_metrics")),
    ]
    values = [getattr(owner, name) for owner, name in kept]
    callbacks = trainer.callbacks  # type: ignore[attr-defined]
    with isolate_rng(), tempfile.TemporaryDirectory() as folder:
        checkpoint = str(Path(folder) / "before.ckpt")
        trainer.callbacks = []  # type: ignore[attr-defined]  # nor asked for their state, nor given it
        trainer.save_checkpoint(checkpoint)
        try:
            trainer.loggers = [DummyLogger()] if trainer.loggers else []
            trainer.limit_val_batches = 0
            loop.epoch_loop.max_steps = loop.max_epochs = -1
            loop.epoch_loop._results = _ResultCollection(training=True)
            trainer.strategy.lr_scheduler_configs = []  # some refuse steps beyond those they were made for
            connector._callback_metrics, connector._logged_metrics, connector._progress_bar_metrics = {}, {}, {}
            yield
        finally:
            trainer.callbacks = []  # type: ignore[attr-defined]
            for (owner, name), value in zip(kept, values, strict=True):
                setattr(owner, name, value)
            set_batch_size(batch_size)
            trainer._checkpoint_connector.restore(checkpoint, weights_only=False)
            loop.restarting = False
            trainer.callbacks = callbacks  # type: ignore[attr-defined]
            garbage_collection_cuda()


def _carried_on(found: list[_Probed], batch_size: int, spent: Reading, epochs: int) -> list[ProbedSize]:
    """What a whole epoch costs: as the run's own, with the difference that the batch size makes to its training."""
    own = next((one.epoch for one in found if one.batch_size == batch_size), None)
    if own is None:
        return []
    rest = Reading(max(spent.energy_j / epochs - own.energy_j, 0.0), max(spent.time_s / epochs - own.time_s, 0.0))
    return [
        ProbedSize(
            batch_size=one.batch_size,
            fits=one.fits,
            epoch_energy=one.epoch.energy_j + rest.energy_j if one.fits else 0.0,
            epoch_time=one.epoch.time_s + rest.time_s if one.fits else 0.0,
            energy=one.cost.energy_j,
            time=one.cost.time_s,
        )
        for one in found
        if not one.fits or one.epoch.time_s > 0
    ]
