"""What a run tells the server as it trains: reports, kept until the server has them, and heartbeats between them.

A training neither fails nor waits long for a server that does not answer; that is said once in the log, and so is its
return. What is reported, and what follows from the answers: `optimizer`.
"""

import logging
import time
from collections import deque

from lightning_bso import client
from lightning_bso.client import BsoClient
from lightning_bso.errors import ServerRefused, ServerUnreachable
from lightning_bso.wire import AskAnswer, ReportAnswer, ReportRequest

log = logging.getLogger(__name__)

LONG_WAIT_S = 1.0
PAUSE_FACTOR = 10
"""A server that has kept a training waiting in vain for long is then left alone for so many times as long."""


class Outbox:
    """The reports of one run that are to be sent."""

    def __init__(self, client: BsoClient) -> None:
        self._client = client
        self._reports: deque[ReportRequest] = deque()
        self._heard_at = 0.0  # when the server last heard of the run, on the monotonic clock
        self._not_before = 0.0  # when to try a server again that did not answer, on the monotonic clock
        self._silent = False  # whether the log has said that the server does not answer
        self.answer: ReportAnswer | None = None
        """To the last report that was received; None before the first."""

    def __len__(self) -> int:
        return len(self._reports)

    def put(self, report: ReportRequest) -> None:
        """Add a report, to be sent after those before it."""
        self._reports.append(report)

    def clear(self) -> None:
        """Drop what has not been sent."""
        self._reports.clear()

    def was_heard(self) -> None:
        """Note that the server has just heard of the run in another way."""
        self._heard_at = time.monotonic()

    def send(self, *, last_chance: bool = False) -> None:
        """Send what has not been sent, oldest first, up to a verdict or until the server does not answer.

        What takes longer than an answer may is gone on with at the next call, unless this is the last chance.

        Raises:
            ServerRefused: the server will not have a report.
        """
        began = time.monotonic()
        not_before = 0.0 if last_chance else self._not_before
        while self._reports and time.monotonic() >= not_before:
            if not last_chance and time.monotonic() > began + client.READ_TIMEOUT_S:
                return
            asked = time.monotonic()
            try:
                self.answer = self._client.report(self._reports[0])
            except ServerUnreachable as error:
                self._leave_alone(error, waited_s=time.monotonic() - asked)
                return
            if self._silent:
                log.warning("The server answers again; %d reports are being made up for", len(self._reports))
            self._silent = False
            self.was_heard()
            self._reports.popleft()
            if self.answer.stop_train:
                self.clear()

    def keep_alive(self, trial: AskAnswer) -> None:
        """Let the server know that a run is alive, where it has not heard of it for a third of the lease."""
        now = time.monotonic()
        if trial.lease_s is None or now < max(self._heard_at + trial.lease_s / 3, self._not_before):
            return
        self.was_heard()
        try:
            self._client.heartbeat(trial.job_id, trial.trial_number)
        except ServerUnreachable as error:
            self._leave_alone(error, waited_s=time.monotonic() - now)
        except ServerRefused as error:
            log.info("Trial %d needs no word of its training: %s", trial.trial_number, error)

    def _leave_alone(self, error: ServerUnreachable, *, waited_s: float) -> None:
        """Say once that the server does not answer, and let it be for a while if that took long."""
        if waited_s > LONG_WAIT_S:
            self._not_before = time.monotonic() + PAUSE_FACTOR * waited_s
        if not self._silent:
            log.warning("Training goes on, and reports what it measures once the server is back: %s", error)
        self._silent = True
