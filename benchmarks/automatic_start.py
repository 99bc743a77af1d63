"""Measure how long a training without code waits for a server that does not answer its ask.

    python -m benchmarks.automatic_start [--launches 3]

Each launch is a new process on the CPU, and fits a small model for one epoch. The server is a real one on SQLite, whose
database takes no rows or is locked by another program, or it is a socket that never answers.
"""

import argparse
import os
import platform
import socket
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from benchmarks.outage import Server
from lightning_bso import variables

TRAINING = """
import time
import torch
from lightning.pytorch import Trainer
from lightning.pytorch.demos.boring_classes import BoringModel, RandomDataset

class Model(BoringModel):
    batch_size = 16
    def train_dataloader(self):
        return torch.utils.data.DataLoader(RandomDataset(32, 256), self.batch_size)
    def validation_step(self, batch, index):
        self.log("val_loss", self.loss(self.layer(batch)))

trainer = Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
began = time.perf_counter()
trainer.fit(Model())
print(time.perf_counter() - began)
"""


def fit_s(url: str | None) -> float:
    """Return the seconds of a fit in a new process. None: without the optimizer."""
    automatic = {} if url is None else {variables.AUTO: "1", variables.SERVER_URL: url}
    run = subprocess.run(
        [sys.executable, "-c", TRAINING], capture_output=True, text=True, check=True, env=os.environ | automatic
    )
    return float(run.stdout.splitlines()[-1])


@contextmanager
def no_server() -> Iterator[None]:
    """No address of a server is set."""
    yield None


@contextmanager
def silent_server() -> Iterator[str]:
    """A server that accepts connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        yield f"http://127.0.0.1:{silent.getsockname()[1]}"


@contextmanager
def real_server(statement: str) -> Iterator[str]:
    """A real server, after another program has sent its database this statement and has kept the connection open."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        try:
            with closing(sqlite3.connect(Path(folder) / "bso.db", isolation_level=None)) as other:
                other.execute(statement)
                yield server.url
        finally:
            server.process.kill()
            server.process.wait()


REFUSING = "CREATE TRIGGER refuse BEFORE INSERT ON jobs BEGIN SELECT RAISE(ABORT, 'a readonly database'); END"
SERVERS = {
    "without the optimizer": no_server(),
    "a server that answers": real_server("SELECT 1"),
    "its database takes no rows": real_server(REFUSING),
    "its database is locked": real_server("BEGIN IMMEDIATE"),
    "a server that never answers": silent_server(),
}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--launches", type=int, default=3, help="number of launches for each server")
    launches = parser.parse_args().launches
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for name, server in SERVERS.items():
        with server as url:
            times = [fit_s(url) for _ in range(launches)]
        print(f"{name}: {statistics.median(times):.2f} s, at most {max(times):.2f} s", flush=True)


if __name__ == "__main__":
    main()
