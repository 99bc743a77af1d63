"""A training in a process of its own, one line of standard input for every epoch that it may begin.

    python -m tests.lightning.training_process URL JOB_AS_JSON METRIC…

It prints the batch size, and "epoch N" before it waits for the line.
"""

import json
import sys
from typing import Any

import lightning.pytorch as pl

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
    url, job, *metrics = sys.argv[1:]
    callback = ZeusBSOCallback(url, json.loads(job), energy_monitor=ScriptedMonitor())
    trainer(callback, OneLineAnEpoch()).fit(Module(map(float, metrics)))
    say(f"converged: {callback.result.converged}" if callback.result else "no verdict")
