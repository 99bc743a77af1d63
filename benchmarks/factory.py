"""Measure what the factory costs a program that uses Lightning beside this package, while the factory is off.

    python -m benchmarks.factory [--repeats 200]

It times the import in new processes, and the calls in this one. Lightning looks factories up for every Trainer, also
where no package has one.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable

from lightning_bso import factory, variables

IMPORT = "import importlib, logging, time, typing; began = time.perf_counter(); import lightning_bso.factory; " + (
    "print(time.perf_counter() - began)"
)
PROCESSES = 20


def import_s() -> float:
    """Return the seconds of an import of the factory, beside what every program with Lightning has imported."""
    run = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    return float(run.stdout)


def median_s(call: Callable[[], object], repeats: int) -> float:
    """Return the median of the seconds that a call takes."""
    times = []
    for _ in range(repeats):
        began = time.perf_counter()
        call()
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=200, help="number of calls")
    repeats = parser.parse_args().repeats
    os.environ.pop(variables.AUTO, None)
    import lightning.pytorch as pl
    from lightning.pytorch.trainer.connectors import callback_connector

    def make_trainer() -> object:
        return pl.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)

    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}")
    print(f"import: {statistics.median(import_s() for _ in range(PROCESSES)) * 1e3:.2f} ms, once in a process")
    print(f"call: {median_s(factory.make_callbacks, repeats) * 1e6:.2f} µs for each Trainer")
    look_up = callback_connector._load_external_callbacks
    print(f"Lightning's look-up of factories: {median_s(lambda: look_up(factory.GROUPS[0]), repeats) * 1e3:.2f} ms")
    print(f"a Trainer: {median_s(make_trainer, repeats) * 1e3:.2f} ms")


if __name__ == "__main__":
    main()
