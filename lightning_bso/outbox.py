"""Sends one run's reports, and heartbeats between them. Keeps each report until the server has received it.

An unreachable server neither fails nor delays a training for long. The log says once that the server is unreachable,
and once that it is reachable again. `optimizer` writes the reports and acts on the answers.
"""

import logging
import time
from collections import deque

from lightning_bso import transport
from lightning_bso.client import BsoClient
from lightning_bso.errors import ServerRefused, ServerUnreachable
from lightning_bso.wire import AfterRequest, AskAnswer, HeartbeatRequest, ReportAnswer, ReportRequest

log = logging.getLogger(__name__)

LONG_WAIT_S = 1.0
"""After a failed call that took longer than this, the outbox makes a pause."""
PAUSE_FACTOR = 10
"""Length of the pause, as a multiple of the time that the failed call took."""


class Outbox:
    """The reports of one run that the server has not received yet, oldest first."""

    def __init__(self, client: BsoClient) -> None:
        self._client = client
        self._reports: deque[ReportRequest] = deque()
        # Both times are on the monotonic clock.
        self._last_contact = 0.0
        self._pause_until = 0.0
        self._unreachable = False  # whether the log has said so
        self.answer: ReportAnswer | None = None
        """Answer to the last report that the server received, or None before the first."""
        self.final: ReportRequest | None = None
        """The report that brought the verdict, or None before that."""

    def __len__(self) -> int:
        return len(self._reports)

    def put(self, report: ReportRequest) -> None:
        """Add a report, to be sent after the reports before it."""
        self._reports.append(report)

    def clear(self) -> None:
        """Drop the reports that have not been sent."""
        self._reports.clear()

    def mark_contact(self) -> None:
        """Note that the server has just received a call of this run."""
        self._last_contact = time.monotonic()

    def send(self, *, last_chance: bool = False) -> None:
        """Send the reports, oldest first, until the server gives a verdict or is unreachable.

        Sending stops after `transport.READ_TIMEOUT_S`, and the next call continues.

        Args:
            last_chance: no later call will follow, so ignore the time limit and the pause.

        Raises:
            ServerRefused: the server refuses a report.
        """
        started = time.monotonic()
        pause_until = 0.0 if last_chance else self._pause_until
        while self._reports and time.monotonic() >= pause_until:
            if not last_chance and time.monotonic() > started + transport.READ_TIMEOUT_S:
                return
            call_started = time.monotonic()
            try:
                self.answer = self._client.report(self._reports[0])
            except ServerUnreachable as error:
                self._back_off(error, waited_s=time.monotonic() - call_started)
                return
            if self._unreachable:
                log.warning("The server is reachable again; sending %d missed reports", len(self._reports))
            self._unreachable = False
            self.mark_contact()
            report = self._reports.popleft()
            if self.answer.stop_train:
                self.final = report
                self.clear()

    def send_after(self, after: AfterRequest, *, last_chance: bool = False) -> None:
        """Report what the training has used since the verdict. Each call has the totals, so a missed one is no loss.

        Args:
            after: the totals.
            last_chance: no later call will follow, so ignore the pause.
        """
        started = time.monotonic()
        if not last_chance and started < self._pause_until:
            return
        try:
            self._client.after(after)
        except ServerUnreachable as error:
            self._back_off(error, waited_s=time.monotonic() - started)
        except ServerRefused as error:
            log.info("The server refused what trial %d uses after its verdict: %s", after.trial_number, error)

    def keep_alive(self, trial: AskAnswer, run_id: str) -> None:
        """Send a heartbeat if the last contact with the server is at least a third of the lease ago."""
        now = time.monotonic()
        if trial.lease_s is None or now < max(self._last_contact + trial.lease_s / 3, self._pause_until):
            return
        self.mark_contact()  # also before a call that fails, so that the next step does not repeat it
        try:
            request = HeartbeatRequest(job_id=trial.job_id, trial_number=trial.trial_number, run_id=run_id)
            self._client.heartbeat(request)
        except ServerUnreachable as error:
            self._back_off(error, waited_s=time.monotonic() - now)
        except ServerRefused as error:
            log.info("The server refused the heartbeat of trial %d: %s", trial.trial_number, error)

    def _back_off(self, error: ServerUnreachable, *, waited_s: float) -> None:
        """Log once that the server is unreachable, and pause if the call took long."""
        if waited_s > LONG_WAIT_S:
            self._pause_until = time.monotonic() + PAUSE_FACTOR * waited_s
        if not self._unreachable:
            log.warning("Training continues, and missed reports are sent once the server is reachable: %s", error)
        self._unreachable = True
