"""Measure the time that ZeusBSOCallback adds to each validation of a Lightning training.

    python -m benchmarks.callback [--epochs 200] [--rounds 5]

The same small training runs with an empty callback and with ZeusBSOCallback in turn. ZeusBSOCallback reports to a real
server (`python -m backend serve`, SQLite) on loopback. An epoch is one step and one validation, so the difference
between the times of an epoch is the callback's work.
"""

import argparse
import logging
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any
from uuid import uuid4

import lightning.pytorch as pl
import torch
from torch.utils.data import DataLoader, TensorDataset
from typing_extensions import override

from lightning_bso import JobSpec, ZeusBSOCallback

ROOT = Path(__file__).parent.parent
SETTLED_AFTER = 5
"""Number of epochs at the start of a fit that do not count."""


class Module(pl.LightningModule):
    """A very short training that never reaches its target."""

    def __init__(self) -> None:
        super().__init__()
        self.batch_size = 32
        self.layer = torch.nn.Linear(1, 1)

    @override
    def training_step(self, batch: list[torch.Tensor], _: int) -> torch.Tensor:
        return self.layer(batch[0]).mean() ** 2

    @override
    def validation_step(self, batch: list[torch.Tensor], _: int) -> None:
        self.log("val_acc", 0.5, batch_size=len(batch[0]))

    @override
    def train_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(TensorDataset(torch.rand(32, 1)), batch_size=self.batch_size)

    @override
    def val_dataloader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(TensorDataset(torch.rand(32, 1)), batch_size=32)

    @override
    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


class Clock(pl.Callback):
    """Records when each epoch starts."""

    def __init__(self) -> None:
        self.epoch_starts: list[float] = []

    @override
    def on_train_epoch_start(self, *_: Any) -> None:
        self.epoch_starts.append(time.perf_counter())


@contextmanager
def server(folder: str) -> Iterator[str]:
    """Run a server process, and yield its address."""
    command = [sys.executable, "-m", "backend", "serve", "--port", "0", "--database-url", f"sqlite:///{folder}/bso.db"]
    environment = os.environ | {"ZEUS_BSO_LOG_LEVEL": "WARNING"}
    with subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().removeprefix("Listening on ").strip()
        finally:
            process.terminate()


def epoch_seconds(callback: pl.Callback, epochs: int) -> list[float]:
    """Train, and return the seconds of each epoch."""
    clock = Clock()
    trainer = pl.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        callbacks=[callback, clock],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Module())
    return [after - before for before, after in pairwise(clock.epoch_starts)][SETTLED_AFTER:]


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    for name in ("lightning.pytorch", "lightning_bso"):
        logging.getLogger(name).setLevel(logging.ERROR)
    times: dict[str, list[float]] = {"empty callback": [], "ZeusBSOCallback": []}
    with tempfile.TemporaryDirectory() as folder, server(folder) as url:
        for _ in range(arguments.rounds):
            job = JobSpec(
                job_id_prefix=f"benchmark-{uuid4().hex}",
                batch_sizes=[32, 64],
                default_batch_size=32,
                target_metric=1.0,
                max_epochs=arguments.epochs + 1,
            )
            times["empty callback"] += epoch_seconds(pl.Callback(), arguments.epochs)
            times["ZeusBSOCallback"] += epoch_seconds(ZeusBSOCallback(url, job), arguments.epochs)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, Python {platform.python_version()}")
    print(f"{'ms per epoch of one validation':32}{'median':>8}{'p95':>8}{'epochs':>8}")
    for name, seconds in times.items():
        p95 = statistics.quantiles(seconds, n=20)[18]
        print(f"{name:32}{statistics.median(seconds) * 1e3:8.2f}{p95 * 1e3:8.2f}{len(seconds):8}")
    added = statistics.median(times["ZeusBSOCallback"]) - statistics.median(times["empty callback"])
    print(f"{'added to the median':32}{added * 1e3:8.2f}")


if __name__ == "__main__":
    main()
