"""Measure how long a training waits while its server is away, and what reaches the server afterwards.

    python -m benchmarks.outage [--away 60]

A run validates every second. Its real server (`python -m backend serve`, SQLite) goes away after five seconds: first it
is killed and started again, then it is stopped (SIGSTOP) and continued. The run uses the CPU alone.
"""

import argparse
import logging
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lightning_bso import BatchSizeOptimizer, BsoClient, JobSpec

ROOT = Path(__file__).parent.parent
BEFORE_S, AFTER_S = 5, 20


class Server:
    """A server process that can go away."""

    def __init__(self, folder: str) -> None:
        self.command = [sys.executable, "-m", "backend", "serve", f"--database-url=sqlite:///{folder}/bso.db"]
        self.port = 0
        self.start()

    def start(self) -> None:
        """Start on the port of before, and wait until it listens."""
        self.process = subprocess.Popen(
            [*self.command, f"--port={self.port}"],
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]
        self.port = int(self.url.rpartition(":")[2])

    def go(self, how: str) -> None:
        """Go away."""
        self.process.send_signal(signal.SIGKILL if how == "killed" else signal.SIGSTOP)

    def come_back(self, how: str) -> None:
        """Answer again."""
        if how == "killed":
            self.process.wait()
            self.start()
        else:
            self.process.send_signal(signal.SIGCONT)


def measure(how: str, away_s: float) -> str:
    """Run a training whose server goes away for a time. Returns a line about it."""
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        try:
            job = JobSpec(
                job_id_prefix="outage",
                batch_sizes=[16],
                default_batch_size=16,
                target_metric=1.0,
                max_epochs=10_000,
            )
            bso = BatchSizeOptimizer(None, server.url, job, gpu_indices=[])
            bso.get_batch_size()
            bso.on_train_begin()
            start, waits_s = time.monotonic(), []
            changes = [(BEFORE_S, server.go), (BEFORE_S + away_s, server.come_back)]
            while (elapsed_s := time.monotonic() - start) < BEFORE_S + away_s + AFTER_S:
                if changes and elapsed_s > changes[0][0]:
                    changes.pop(0)[1](how)
                validated = time.monotonic()
                bso.on_evaluate(0.5)
                waits_s.append(time.monotonic() - validated)
                time.sleep(1)
            bso.end("the benchmark is over")
            client = BsoClient(server.url)
            stored = client.list_trials(client.list_jobs().jobs[0].job_id).trials[0].current_epoch
        finally:
            server.process.kill()
            server.process.wait()
    return (
        f"{how} for {away_s:.0f} s: {len(waits_s)} validations, {stored} of them stored; the training waited "
        f"{sum(waits_s):.1f} s of {elapsed_s:.0f} s, at most {max(waits_s):.2f} s at once"
    )


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--away", type=float, default=60.0, help="seconds that the server is away")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    for how in ("killed", "stopped"):
        print(measure(how, arguments.away), flush=True)


if __name__ == "__main__":
    main()
