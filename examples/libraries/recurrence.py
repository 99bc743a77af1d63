"""What the scripts of this folder share: the server's address, and the line that each of them prints."""

import argparse
from collections import Counter
from collections.abc import Iterable

from lightning_bso.wire import ReportAnswer


def read_arguments(description: str, **choices: list[str]) -> argparse.Namespace:
    """Read the command line: the server's address, and options that the script adds, the first choice by default."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--server-url", default="http://127.0.0.1:8000")
    for name, values in choices.items():
        parser.add_argument(f"--{name}", choices=values, default=values[0])
    return parser.parse_args()


def print_run(batch_size: int | None, sizes_seen: Iterable[int], result: ReportAnswer | None) -> None:
    """Print the run's batch size, how many samples the batches of the training step had, and the verdict."""
    seen = ", ".join(f"{count} of {size}" for size, count in Counter(sizes_seen).most_common())
    print(f"Batch size {batch_size}, batches: {seen}. {result.message if result else 'Ended without a verdict'}")
