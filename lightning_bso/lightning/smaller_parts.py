"""Lets a fit go on in smaller parts of its batches when a training step runs out of memory.

Lightning has no hook for that, so `SmallerParts` wraps the method of Lightning's training loop that takes one batch.
There, nothing but the batches since the last optimizer step is taken again: one, unless the training accumulates
several by itself. No other hook runs twice, and the number of optimizer steps stays what learning rate schedulers and
`max_steps` were made for.
How a batch is split is in `dataloading.py`. `callback.py` decides whether a fit may go on in this way.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from lightning_bso.errors import is_out_of_memory
from lightning_bso.lightning.families import classes, family_of, find
from lightning_bso.optimizer import BatchSizeOptimizer

if TYPE_CHECKING:
    import lightning.pytorch as pl

log = logging.getLogger(__name__)


class SmallerParts:
    """Halves what a device takes at a time, as often as a training step of this fit runs out of memory.

    A fit on several devices cannot go on, because the other processes wait for this one within a step. It ends without
    a verdict, and the job's next run takes half as much at a time.

    Create it in `Callback.setup`, and `remove` it at the end of the fit.

    Args:
        trainer: the trainer of the fit.
        run: the run, which tells the server how much fits.
        part_size: number of samples that a device takes at a time.
        take_at_most: splits the batch into parts of at most this size, sets the batch size of the loaders that are
            still to be built, and returns the size of a part.
        check: checks the loaders once they are built.
    """

    def __init__(
        self,
        trainer: pl.Trainer,
        run: BatchSizeOptimizer,
        part_size: int,
        take_at_most: Callable[[int], int],
        check: Callable[[], None],
    ) -> None:
        self._trainer = trainer
        self._run = run
        self._part_size = part_size
        self._take_at_most = take_at_most
        self._check = check
        self._is_stepping = False
        self._fit_loop: Any = trainer.fit_loop  # most of what is used of it is private
        self._advance = self._fit_loop.epoch_loop.advance
        vars(self._fit_loop.epoch_loop)["advance"] = self._advance_in_parts

    def remove(self) -> None:
        """Take batches as Lightning does again."""
        del vars(self._fit_loop.epoch_loop)["advance"]

    def note_step(self) -> None:
        """Note that the optimizer starts to change the weights. Call this in `Callback.on_before_optimizer_step`."""
        self._is_stepping = True

    def _advance_in_parts(self, _: Any) -> None:
        """Take one batch, of Lightning's current fetcher: going on replaces the one that the loop gives."""
        while True:
            self._is_stepping = False
            try:
                self._advance(self._fit_loop._data_fetcher)
                return
            except Exception as error:
                # A step that stopped halfway cannot be repeated, nor does its memory depend on the batch.
                if self._is_stepping or self._part_size == 1 or not is_out_of_memory(error):
                    raise
                limit = self._part_size // 2
                if not isinstance(self._trainer.strategy, classes("strategies:SingleDeviceStrategy")):
                    self._leave_to_the_next_run(error, limit)
                    raise
            # Only after the handler is the error gone, and with it the frames that hold the step's tensors.
            self._go_on(limit)

    def _go_on(self, limit: int) -> None:
        """Rebuild the train loaders with smaller batches, and set Lightning's progress to the step that failed."""
        self._run.limit_device_batch_size(limit)  # first, because a lack of memory may also end the process
        trainer, loop, size_before = self._trainer, self._fit_loop, self._part_size
        batches_in_epoch = loop.max_batches / self._run.accumulate_grad_batches
        trainer.lightning_module.zero_grad()
        loop._data_fetcher.teardown()  # ends its workers
        find(family_of(trainer), "utilities.memory:garbage_collection_cuda")()

        self._part_size = self._take_at_most(limit)
        parts = self._run.accumulate_grad_batches
        # Not a warning of Python's: `python -W error` would make it an error, which ends the fit.
        log.warning(
            "Out of memory in training with %d samples at a time. The fit goes on with %d at a time, in %d parts",
            size_before,
            self._part_size,
            parts,
        )
        reloads = trainer.reload_dataloaders_every_n_epochs  # type: ignore[attr-defined]  # set by a connector
        if math.isfinite(batches_in_epoch) and not reloads:
            # An int limit counts parts, and drop_last now drops less. Neither must change the number of steps.
            trainer.limit_train_batches = math.ceil(batches_in_epoch) * parts
        loop._combined_loader = None  # Lightning builds the loaders again
        loop.setup_data()

        steps, batches = loop.epoch_loop.automatic_optimization.optim_progress, loop.epoch_loop.batch_progress
        taken = steps.optimizer.step.current.completed * trainer.accumulate_grad_batches
        done = min(taken, loop.max_batches - 1)
        batches.current.load_state_dict(dict.fromkeys(batches.current.state_dict(), done))
        batches.total.reset_on_restart()  # the failed batch does not count
        loop.epoch_loop.on_run_start(loop._data_fetcher)
        self._check()

    def _leave_to_the_next_run(self, error: Exception, limit: int) -> None:
        if self._run.trial is None:
            return
        error.add_note(
            f"A device took {self._part_size} samples at a time. Launch the training again: the job's next run takes "
            f"at most {limit} at a time, and this run says nothing about its batch size. Only a fit on one device "
            "goes on by itself"
        )
        self._run.abandon(error, current_epoch=self._trainer.current_epoch, max_device_batch_size=limit)
