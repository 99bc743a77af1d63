"""The processor time of an ask inside the server, as a job's history grows.

    python -m benchmarks.decisions [--policy gp-ucb] [--trials 1000 10000] [--lost 0 0.9] [--repeats 7]

It runs on SQLite with 20 batch sizes and without HTTP. The history is inserted as rows. It prints the minimum, the
median and the maximum of three measurements, in ms:

- *first*: the first ask for the job, before any summary of its trials is stored.
- *cold*: the first ask in a new process, which has answered asks for another job before.
- *warm*: later asks in the same process. Each trial converges before the next ask.
"""

import argparse
import math
import multiprocessing
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from sqlalchemy import insert, update

from backend.app import create_app
from backend.config import load_settings
from backend.core.state import TrialStatus, TrialType
from backend.database.extensions import db
from backend.database.models import Job, Trial
from backend.usecases import jobs, runs
from backend.usecases.audit import COMMAND_LINE
from lightning_bso.wire import AskAnswer, RegisteredJobSpec, ReportRequest

BATCH_SIZES = [8 * 2**n + extra * 2**n for n in range(10) for extra in (0, 4)]
MAX_EPOCHS = 100
LEASE_S = 3600


def totals(batch_size: int, number: int) -> tuple[int, float, float]:
    """Return the epochs, seconds and joules of a run to the target. The best batch size is 96."""
    noise = math.exp(random.Random(number).gauss(0, 0.1))
    epochs = max(1, round(20 * noise * (1 + abs(math.log2(batch_size / 96)) / 4)))
    return epochs, float(epochs), 100.0 * epochs


@contextmanager
def serving(url: str) -> Iterator[None]:
    """Enter the server's application context, on a database."""
    with create_app(load_settings(database_url=url, log_level="WARNING")).app_context():
        yield


def register(job_id: str, policy: str) -> None:
    """Register the job."""
    jobs.register(
        RegisteredJobSpec(
            job_id_prefix=job_id,
            job_id=job_id,
            batch_sizes=BATCH_SIZES,
            default_batch_size=64,
            max_epochs=MAX_EPOCHS,
            policy=policy,
            max_power=250,
            number_of_gpus=1,
            gpu_model="none",
        ),
        by=COMMAND_LINE,
    )


def write_history(url: str, policy: str, trials: int, lost: float) -> None:
    """Create the jobs `other`, and `long` with a history.

    Args:
        url: the database.
        policy: policy of both jobs.
        trials: number of trials in the history.
        lost: share of lost trials.
    """
    rng, rows = random.Random(trials), []
    for number in range(1, trials + 1):
        batch_size = rng.choice(BATCH_SIZES)
        epochs, time_s, energy_j = totals(batch_size, number)
        outcome: dict[str, Any] = {"status": TrialStatus.SUCCEEDED, "outcome_code": "converged", "converged": True}
        if rng.random() < lost:
            outcome = {"status": TrialStatus.FAILED, "outcome_code": "lost", "converged": None}
        rows.append(
            {
                "job": 2,
                "number": number,
                "exploration": 0,
                "batch_size": batch_size,
                "type": TrialType.MAB,
                "reason": "expected 1234 J ± 56; the best so far is 1200 J at 96",
                "bound_factor": 1.0,
                "outcome": "metric 1 reached the target 1",
                "energy_j": energy_j,
                "time_s": time_s,
                "epochs": epochs,
                "energy_source": "measured",
                "started_revision": 2 * number,
                "ended_revision": 2 * number + 1,
                "started_at": datetime(2026, 1, 1),
                "last_seen_at": datetime(2026, 1, 1),
                "ended_at": datetime(2026, 1, 1),
            }
            | outcome
        )
    with serving(url):
        register("other", policy)
        register("long", policy)
        with db.engine.begin() as connection:
            connection.execute(insert(Trial), rows)  # rows of the second job
            connection.execute(update(Job).values(revision=2 * trials + 2))


def timed_ask(job_id: str) -> tuple[AskAnswer, float]:
    """Ask for a batch size. Return the answer, and the processor time in ms."""
    start_s = time.process_time()
    answer = runs.ask(job_id, None, by=COMMAND_LINE, lease_s=LEASE_S)
    return answer, (time.process_time() - start_s) * 1e3


def converge(ask: AskAnswer) -> None:
    """Report that a run has reached the target."""
    epochs, time_s, energy_j = totals(ask.batch_size, ask.trial_number)
    runs.report(
        ReportRequest(
            job_id=ask.job_id,
            batch_size=ask.batch_size,
            trial_number=ask.trial_number,
            time=time_s,
            energy=energy_j,
            metric=1.0,
            current_epoch=epochs,
            report_number=1,
        ),
        by=COMMAND_LINE,
        lease_s=LEASE_S,
    )


def time_cold_ask(url: str) -> float:
    """Return the processor time of this process's first ask for `long`, in ms."""
    with serving(url):
        for _ in range(5):
            converge(timed_ask("other")[0])
        answer, spent_ms = timed_ask("long")
        converge(answer)
        return spent_ms


def time_warm_asks(url: str, count: int) -> list[float]:
    """Return the processor times of this process's asks for `long` after its first ask, in ms."""
    with serving(url):
        spent_ms = []
        for _ in range(count + 1):
            answer, spent = timed_ask("long")
            spent_ms.append(spent)
            converge(answer)
        return spent_ms[1:]


def run_in_new_process(task: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task in a new process, which inherits nothing. Return its result."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


def spread(spent_ms: list[float]) -> str:
    """Format the minimum, the median and the maximum."""
    return " ".join(f"{value:8.2f}" for value in (min(spent_ms), statistics.median(spent_ms), max(spent_ms)))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--policy", choices=["zeus", "gp-ucb"], default="gp-ucb")
    parser.add_argument("--trials", type=int, nargs="+", default=[1000, 10_000])
    parser.add_argument("--lost", type=float, nargs="+", default=[0.0, 0.9], help="shares of lost trials")
    parser.add_argument("--repeats", type=int, default=7)
    arguments = parser.parse_args()
    print("trials  lost     first  | cold: min, median, max      | warm: the same")
    for trials in arguments.trials:
        for lost in arguments.lost:
            with tempfile.TemporaryDirectory() as folder:
                url = f"sqlite:///{folder}/benchmark.db"
                run_in_new_process(write_history, url, arguments.policy, trials, lost)
                first = run_in_new_process(time_cold_ask, url)
                cold = [run_in_new_process(time_cold_ask, url) for _ in range(arguments.repeats)]
                warm = run_in_new_process(time_warm_asks, url, 20 * arguments.repeats)
            print(f"{trials:>6}  {lost:>4}  {first:8.2f}  | {spread(cold)} | {spread(warm)}", flush=True)


if __name__ == "__main__":
    main()
