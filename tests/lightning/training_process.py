"""A training in a process of its own, one line of standard input for every epoch that it may begin.

    python -m tests.lightning.training_process URL JOB_AS_JSON METRIC…

It prints the batch size, and "epoch N" before it waits for the line. In the folder `$CHECKPOINTS`, if that is
set, it saves every epoch, and it goes on from what is there.
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
from tests.lightning.trainings import Module, trainer


class OneLineAnEpoch(pl.Callback):
    """Says where the training is, and waits until it may go on."""

    def on_train_start(self, running: pl.Trainer, module: pl.LightningModule) -> None:
        say(f"batch size {module.batch_size}")

    def on_train_epoch_start(self, running: pl.Trainer, *_: Any) -> None:
        say(f"epoch {running.current_epoch}")
        sys.stdin.readline()


def say(line: str) -> None:
    """Tell the test."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell in the background would have it ignored
    url, job, *metrics = sys.argv[1:]
    callback = ZeusBSOCallback(url, json.loads(job), energy_monitor=ScriptedMonitor())
    callbacks, folder = [callback, OneLineAnEpoch()], os.environ.get("CHECKPOINTS")
    if folder is not None:
        callbacks.append(ModelCheckpoint(folder, save_last=True, save_on_train_epoch_end=False))
    running = trainer(*callbacks, enable_checkpointing=folder is not None)
    running.fit(Module(map(float, metrics)), ckpt_path="last" if folder is not None else None)
    say(f"converged: {callback.result.converged}" if callback.result else "no verdict")
