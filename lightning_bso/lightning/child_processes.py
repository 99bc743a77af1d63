"""Abandons the run when a process that Lightning forked or spawned for a fit ends with an error.

Lightning reports such an error only to the callbacks of the main process, and these hold no run.
"""

from __future__ import annotations

import sys
from multiprocessing.util import Finalize
from typing import TYPE_CHECKING

from lightning_bso.lightning.families import classes
from lightning_bso.optimizer import BatchSizeOptimizer

if TYPE_CHECKING:
    import lightning.pytorch as pl


def abandon_at_exit(trainer: pl.Trainer, run: BatchSizeOptimizer) -> None:
    """Abandon a run if an error ends this process. Does nothing unless Lightning created the process for the fit."""
    if isinstance(trainer.strategy.launcher, classes("strategies.launchers.multiprocessing:_MultiProcessingLauncher")):
        Finalize(None, _abandon, (run,), exitpriority=0)


def _abandon(run: BatchSizeOptimizer) -> None:
    error = sys.exception()  # the error that ends this process
    if type(error) is SystemExit and error.__context__ is not None:
        error = error.__context__  # torch turned this error into an exit
    if error is not None:  # without an error the run is over, or torch suppressed a Ctrl-C
        run.abandon(error)
