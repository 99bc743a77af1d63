"""16 clients that train on 4 jobs while a test lets a node or a server fail, and what the database then holds."""

import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from threading import Event, Thread
from types import TracebackType
from typing import Self

from lightning_bso.wire import RegisteredJobSpec
from tests import specs
from tests.databases import connected
from tests.faults.checks import answered, assert_decided_well
from tests.faults.load import Load
from tests.servers import Server

JOBS = 4
"""Each with the clients of a `Load`."""
SETTLED = 200
"""Reports to wait for before and after a fault."""


class Clients:
    """16 clients that train on 4 jobs through haproxy."""

    def __init__(self, url: str) -> None:
        jobs = [specs.job(job_id=f"train-{number}", mab_seed=None) for number in range(JOBS)]
        self.loads = [Load(url, job=RegisteredJobSpec.model_validate(job)) for job in jobs]
        self.longest_pause_s = 0.0
        """The longest time in which none of the clients had a report acknowledged."""
        self._stack = ExitStack()
        self._over = Event()
        self._watcher = Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        for load in self.loads:
            self._stack.enter_context(load)
        self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watcher.join()
        self._stack.__exit__(kind, error, trace)

    @property
    def acknowledged(self) -> int:
        """Number of acknowledged reports."""
        return sum(len(load.reports) for load in self.loads)

    def wait_for(self, reports: int) -> None:
        """Wait until each job has a share of that many more acknowledged reports."""
        for load in self.loads:
            load.wait_for(reports // JOBS)

    def _watch(self) -> None:
        last, seen = time.monotonic(), self.acknowledged
        while not self._over.wait(0.01):
            if self.acknowledged != seen:
                now, seen = time.monotonic(), self.acknowledged
                self.longest_pause_s = max(self.longest_pause_s, now - last)
                last = now


@dataclass
class Counts:
    """What was acknowledged, and what the database holds."""

    acknowledged: int
    lost: int
    doubled: int
    other: int
    """Stored reports that were not acknowledged, or that differ from what was sent."""
    trials: int
    gaps: int


def count_stored(clients: Clients, url: str) -> Counts:
    """Compare the database with what the clients have been told."""
    with connected(url) as connection:
        reports = Counter(
            map(
                tuple,
                connection.exec_driver_sql(
                    "SELECT j.job_id, t.run_id, r.number, r.energy_j FROM reports r JOIN trials t ON t.id = r.trial "
                    "JOIN jobs j ON j.id = t.job"
                ).all(),
            )
        )
        numbers = connection.exec_driver_sql(
            "SELECT j.job_id, t.number, t.run_id FROM trials t JOIN jobs j ON j.id = t.job ORDER BY j.job_id, t.number"
        ).all()
    told = {
        (load.job.job_id, run, request.report_number, request.energy)
        for load in clients.loads
        for run, request, _ in load.reports
    }
    trials = {
        (load.job.job_id, trial.trial_number, run) for load in clients.loads for run, trial in load.trials.items()
    }
    of_job = Counter(job for job, _, _ in numbers)
    gapless = {(job, number) for job, trials in of_job.items() for number in range(1, trials + 1)}
    return Counts(
        acknowledged=len(told),
        lost=len(told - set(reports)) + len(trials - set(map(tuple, numbers))),
        doubled=sum(times - 1 for times in reports.values())
        + len(numbers)
        - len({(job, run) for job, _, run in numbers}),
        other=len(set(reports) - told),
        trials=len(numbers),
        gaps=len(gapless - {(job, number) for job, number, _ in numbers}),
    )


def assert_kept(title: str, clients: Clients, servers: Sequence[Server], last: Server) -> None:
    """Print what was acknowledged and what the database holds, and check that it is the same.

    Args:
        title: what has failed, for the print.
        clients: the clients, which have ended.
        servers: the servers that answered. Each logs all requests.
        last: one that still runs.
    """
    counts = count_stored(clients, last.database_url)
    statuses = sum((answered(server) for server in servers), Counter[int]())
    print(f"\n{title}: {counts}")
    print(
        f"  {clients.longest_pause_s:.1f} s without any acknowledged report; the longest call took "
        f"{max(load.longest_s for load in clients.loads):.1f} s; "
        f"{sum(len(load.unanswered) for load in clients.loads)} calls given up and repeated; "
        f"answers {dict(sorted(statuses.items()))}"
    )
    assert (counts.lost, counts.doubled, counts.other, counts.gaps) == (0, 0, 0, 0)
    assert not {status for status in statuses if status >= 500 and status != 503}
    for load in clients.loads:
        assert_decided_well(last, load.job.job_id or "")
