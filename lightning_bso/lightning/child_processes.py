"""The end of processes that Lightning has forked or spawned for a fit, of which no callback in them hears.

Lightning tells an error to the callbacks of the main process, which know of no run.
"""

import sys
from multiprocessing.util import Finalize

import lightning.pytorch as pl
from lightning.pytorch.strategies.launchers.multiprocessing import _MultiProcessingLauncher

from lightning_bso.optimizer import BatchSizeOptimizer


def abandon_with_process(trainer: pl.Trainer, run: BatchSizeOptimizer) -> None:
    """Have a run abandoned by the error that ends this process, if Lightning has made the process for the fit."""
    if isinstance(trainer.strategy.launcher, _MultiProcessingLauncher):
        Finalize(None, _abandon, (run,), exitpriority=0)


def _abandon(run: BatchSizeOptimizer) -> None:
    error = sys.exception()  # on its way out of this process
    if type(error) is SystemExit and error.__context__ is not None:
        error = error.__context__  # that torch has made an exit of
    if error is not None:  # without one the run is over, or torch has kept quiet about a Ctrl-C
        run.abandon(error)
