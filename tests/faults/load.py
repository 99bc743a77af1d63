"""Trainings that ask and report without a pause while a test lets something fail.

Each thread has a real client, and trains one run after the other. A call without an answer is repeated until there is
one. So at the end the database must hold exactly what was acknowledged.
"""

import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import count
from threading import Condition, Event
from types import TracebackType
from typing import Self, TypeVar

from lightning_bso import BsoClient, ServerUnreachable
from lightning_bso.wire import AskAnswer, RegisteredJobSpec, ReportAnswer, ReportRequest
from tests import specs

THREADS = 4
REPORTS = 4
"""Number of reports of a run. The last one converges."""
PATIENCE_S = 120.0
JOB = RegisteredJobSpec.model_validate(specs.job(mab_seed=None))

Answer = TypeVar("Answer")


class Load:
    """The trainings, as a context manager that ends them. At its end every run has its verdict.

    Args:
        urls: addresses of servers. The threads share them out. A test may change them.
        job: the job that the trainings belong to. It is registered at the start.
    """

    def __init__(self, *urls: str, job: RegisteredJobSpec = JOB) -> None:
        self.urls = urls
        self.job = job
        self.trials: dict[str, AskAnswer] = {}
        """Acknowledged asks by the name of the run."""
        self.reports: list[tuple[str, ReportRequest, ReportAnswer]] = []
        """Acknowledged reports: the name of the run, the report and its answer."""
        self.unanswered: list[str] = []
        """Why calls got no answer, after the client's own retries."""
        self.longest_s = 0.0
        """The longest time that a call took, with the client's own retries."""
        self._pool = ThreadPoolExecutor(THREADS)
        self._trainings: list[Future[None]] = []
        self._acknowledged = Condition()
        self._over = Event()

    def __enter__(self) -> Self:
        BsoClient(self.urls[0]).register(self.job)
        self._trainings = [self._pool.submit(self._train, thread) for thread in range(THREADS)]
        self.wait_for(2 * THREADS)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._pool.shutdown()
        if error is None:  # else it may be why the trainings got no answer
            for training in self._trainings:
                training.result()

    def wait_for(self, reports: int) -> None:
        """Wait until that many more reports are acknowledged than now."""
        with self._acknowledged:
            wanted = len(self.reports) + reports
            assert self._acknowledged.wait_for(
                lambda: len(self.reports) >= wanted or any(training.done() for training in self._trainings), PATIENCE_S
            ), f"stalled after {len(self.reports)} reports: {self.unanswered[-3:]}"
        for training in self._trainings:
            if training.done():
                training.result()

    def _train(self, thread: int) -> None:
        connect = cache(BsoClient)

        def server() -> BsoClient:
            return connect(self.urls[thread % len(self.urls)])

        for number in count():
            if self._over.is_set():
                return
            run = f"run-{thread}-{number}"
            # Every run has a cost of its own, and none is twice the cost of another, so no cost bound ends a run.
            energy = 100.0 + number % 50 + thread / THREADS
            trial = self._until_answered(lambda: server().ask(self.job.job_id or "", run))  # noqa: B023
            self.trials[run] = trial
            for report_number in range(1, REPORTS + 1):
                request = ReportRequest(
                    job_id=trial.job_id,
                    batch_size=trial.batch_size,
                    trial_number=trial.trial_number,
                    run_id=run,
                    time=float(report_number),
                    energy=energy * report_number / REPORTS,
                    metric=1.0 if report_number == REPORTS else 0.5,
                    current_epoch=report_number,
                    report_number=report_number,
                )
                answer = self._until_answered(lambda: server().report(request))  # noqa: B023
                assert answer.stop_train == answer.converged == (report_number == REPORTS), answer
                with self._acknowledged:
                    self.reports.append((run, request, answer))
                    self._acknowledged.notify_all()

    def _until_answered(self, call: Callable[[], Answer]) -> Answer:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            began = time.monotonic()
            try:
                return call()
            except ServerUnreachable as error:
                self.unanswered.append(str(error))
                if time.monotonic() > deadline:
                    raise
            finally:
                self.longest_s = max(self.longest_s, time.monotonic() - began)
            time.sleep(0.05)  # as a training computes between two reports
