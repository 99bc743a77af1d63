"""Which jobs need a person's attention, and why. Each job has at most one cause: the first of `Cause` that it has.

Nothing here reads data or words a message for a page.
"""

from datetime import datetime, timedelta
from enum import StrEnum

IN_A_ROW = 3
"""A job needs attention after this many runs in a row that failed, or that ended without a verdict."""
MIN_LAUNCHES = 6
"""Fewer launches say nothing of how often a job runs."""
IDLE_INTERVALS = 5
"""A job needs attention after this many times its usual interval without a launch, and after `MIN_IDLE`."""
MIN_IDLE, RETIRED = timedelta(hours=1), timedelta(days=30)
"""A job that has been idle for `RETIRED` is taken for given up."""
DRIFT_LAUNCHES = 5
"""Launches for which a change of a job's costs stays news."""


class Cause(StrEnum):
    """Why a job needs attention, the most urgent cause first."""

    STUCK = "stuck"
    CRASHES = "without a verdict"
    FAILURES = "failed"
    OVERDUE = "overdue"
    DRIFTED = "drifted"
    IDLE = "idle"


def usual_interval(launches: int, first: datetime, last: datetime) -> timedelta | None:
    """Return the mean time between a job's launches; None: there were too few."""
    return None if launches < MIN_LAUNCHES else (last - first) / (launches - 1)


def idle_from(launches: int, first: datetime, last: datetime) -> datetime | None:
    """Return when a job should have run again, so that from then on it is idle; None: there were too few launches."""
    interval = usual_interval(launches, first, last)
    return None if interval is None else last + max(MIN_IDLE, IDLE_INTERVALS * interval)
