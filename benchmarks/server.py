"""Measure how long an ask and a report take on a real server, for jobs with a growing history.

    python -m benchmarks.server [--database-url mysql+pymysql://…] [--sizes 0 1000 10000] [--policy gp-ucb]

One client calls the server on loopback, and waitress has eight threads. The service itself writes the history.
Prints the median and the 99th percentile of each call.
"""

import argparse
import contextlib
import os
import platform
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from backend.app import create_app
from backend.config import load_settings
from backend.usecases import runs
from backend.usecases.audit import COMMAND_LINE
from lightning_bso import BsoClient
from lightning_bso.wire import AskAnswer, RegisteredJobSpec, ReportRequest

ROOT = Path(__file__).parent.parent
BATCH_SIZES = [8 * 2**n for n in range(10)]


def report_for(ask: AskAnswer, number: int) -> ReportRequest:
    """Return the first report of a run, or the second, with which it converges. Batch size 256 costs least."""
    noise = random.Random(ask.trial_number).uniform(0.95, 1.05)
    energy = (100 + abs(BATCH_SIZES.index(ask.batch_size) - 5) * 20) * noise * number / 2
    return ReportRequest(
        job_id=ask.job_id,
        batch_size=ask.batch_size,
        trial_number=ask.trial_number,
        time=energy / 100,
        energy=energy,
        metric=number - 1.0,
        current_epoch=number,
        report_number=number,
    )


def quantiles(seconds: list[float]) -> str:
    """Format the median and the 99th percentile in milliseconds."""
    return f"{statistics.median(seconds) * 1e3:7.2f} {statistics.quantiles(seconds, n=100)[98] * 1e3:7.2f}"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--database-url")
    parser.add_argument("--sizes", type=int, nargs="+", default=[0, 1000, 10_000])
    parser.add_argument("--policy", choices=["zeus", "gp-ucb"], default="zeus")
    parser.add_argument("--calls", type=int, default=200)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        url = arguments.database_url or f"sqlite:///{folder}/benchmark.db"
        app = create_app(load_settings(database_url=url, log_level="WARNING"))
        command = [sys.executable, "-m", "backend", "serve", "--port", "0", "--database-url", url]
        environment = os.environ | {"ZEUS_BSO_LOG_LEVEL": "WARNING"}
        server = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True)
        with contextlib.ExitStack() as stack:
            stack.callback(server.wait)
            stack.callback(server.terminate)
            address = server.stdout.readline().removeprefix("Listening on ").strip() if server.stdout else ""
            client = BsoClient(address)
            dialect = url.split(":")[0]
            machine = platform.processor() or platform.machine()
            print(f"{machine}, {os.cpu_count()} cores, {dialect}, {arguments.policy}, in ms")
            print("trials    ask: median, p99  |  report: same    |  last report: same")
            for size in arguments.sizes:
                job = client.register(
                    RegisteredJobSpec(
                        job_id_prefix="benchmark",
                        job_id=f"benchmark-{size}-{time.time_ns()}",
                        batch_sizes=BATCH_SIZES,
                        default_batch_size=64,
                        beta_knob=None,
                        policy=arguments.policy,
                        max_power=250,
                        number_of_gpus=1,
                        gpu_model="none",
                    )
                )
                with app.app_context():
                    for _ in range(size):
                        ask = runs.ask(job.job_id or "", None, by=COMMAND_LINE, lease_s=3600)
                        runs.report(report_for(ask, 2), by=COMMAND_LINE, lease_s=3600)
                times: tuple[list[float], ...] = ([], [], [])
                for call in range(arguments.calls):
                    started = time.perf_counter()
                    ask = client.ask(job.job_id or "", f"run-{call}")
                    times[0].append(time.perf_counter() - started)
                    for number in (1, 2):
                        started = time.perf_counter()
                        client.report(report_for(ask, number))
                        times[number].append(time.perf_counter() - started)
                columns = "  |  ".join(quantiles(column) for column in times)
                print(f"{size:>6}    {columns}")


if __name__ == "__main__":
    main()
