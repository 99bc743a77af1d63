"""A training in its own process. It reads one line of standard input before every epoch.

    python -m tests.lightning.training_process URL JOB_AS_JSON METRIC…

It prints the batch size, and "epoch N" before it waits for a line. If `$CHECKPOINTS` names a folder, it saves every
epoch there, and resumes from the last checkpoint in it.
"""

import json
import os
import signal
import sys
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.callbacks import ModelCheckpoint

from lightning_bso import ZeusBSOCallback
from tests.client.jobs import ScriptedMonitor
from tests.lightning.trainings import AT_A_VALIDATION, Module, trainer


class OneLineAnEpoch(pl.Callback):
    """Prints the epoch, and waits for a line before the epoch starts."""

    def on_train_start(self, running: pl.Trainer, module: pl.LightningModule) -> None:
        write_line(f"batch size {module.batch_size}")

    def on_train_epoch_start(self, running: pl.Trainer, *_: Any) -> None:
        write_line(f"epoch {running.current_epoch}")
        sys.stdin.readline()


def write_line(line: str) -> None:
    """Write a line for the test."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background shell starts its processes with it ignored
    url, job, *metrics = sys.argv[1:]
    callback = ZeusBSOCallback(url, json.loads(job), energy_monitor=ScriptedMonitor())
    callbacks, folder = [callback, OneLineAnEpoch()], os.environ.get("CHECKPOINTS")
    if folder is not None:
        callbacks.append(ModelCheckpoint(folder, save_last=True, **AT_A_VALIDATION))
    running = trainer(*callbacks, enable_checkpointing=folder is not None)
    running.fit(Module(map(float, metrics)), ckpt_path="last" if folder is not None else None)
    write_line(f"converged: {callback.result.converged}" if callback.result else "no verdict")
