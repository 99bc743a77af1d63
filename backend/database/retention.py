"""Remove old rows: the reports of trials that ended long ago, and old entries of the audit log.

What counts in decisions and sums stays: the trials with their totals, and the learnt targets with the curves that they
come from.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import NamedTuple, cast

from sqlalchemy import ColumnElement, Connection, Table, bindparam, delete, func, select, text
from sqlalchemy.orm import Session

from ..core.state import TrialStatus, TrialType
from .models import AuditEntry, Job, Report, Trial
from .store import now

_REPORTS, _AUDIT = cast(Table, Report.__table__), cast(Table, AuditEntry.__table__)
_DELETE_EARLIER = delete(_REPORTS).where(
    _REPORTS.c.trial == bindparam("of_trial"), _REPORTS.c.number < bindparam("last_number")
)


class OldTrial(NamedTuple):
    """A trial that ended long ago and has more reports than its last one."""

    id: int
    last_number: int
    """Number of its last report."""
    earlier: int
    """Number of its reports before the last one."""


def days_ago(reads: Session | Connection, days: int) -> datetime:
    """Return the time of the database's clock some days ago, in UTC."""
    return now(reads) - timedelta(days=days)


def job_ids(session: Session) -> Sequence[str]:
    """Return the ids of all jobs."""
    return session.scalars(select(Job.job_id).order_by(Job.id)).all()


def old_trials(
    reads: Session | Connection, job_id: str, ended_before: datetime, *, after: int = 0, limit: int | None = None
) -> list[OldTrial]:
    """Return the trials of a job whose reports may go, but for the last one of each.

    A running trial keeps all its reports, and so does a calibration run: its curve says where the target comes from.

    Args:
        reads: the transaction.
        job_id: the job.
        ended_before: only trials that ended before this time.
        after: only trials with a higher id.
        limit: maximum number of trials, by rising ids; None: all.
    """
    query = (
        select(Trial.id, func.max(Report.number), func.count() - 1)
        .join(Job, Trial.job == Job.id)
        .join(Report, Report.trial == Trial.id)
        .where(
            Job.job_id == job_id,
            Trial.id > after,
            Trial.ended_at < ended_before,
            Trial.status != TrialStatus.DISPATCHED,
            Trial.type != TrialType.CALIBRATION,
        )
        .group_by(Trial.id)
        .having(func.count() > 1)
        .order_by(Trial.id)
        .limit(limit)
    )
    return [OldTrial(*row) for row in reads.execute(query)]


def delete_reports(connection: Connection, trials: Sequence[OldTrial]) -> None:
    """Delete the reports of some trials, but for the last one of each. A repeated report is compared with that one."""
    connection.execute(_DELETE_EARLIER, [{"of_trial": old.id, "last_number": old.last_number} for old in trials])


def count_audit_entries(session: Session, before: datetime, keeping: str) -> int:
    """Count the audit entries from before a time, but for those of the action `keeping`."""
    return session.scalars(select(func.count()).where(*_old_entries(before, keeping))).one()


def delete_audit_entries(connection: Connection, before: datetime, keeping: str, limit: int) -> int:
    """Delete the oldest of the audit entries that `count_audit_entries` counts, and return how many there were.

    In an SQLite file, a trigger refuses this. It is taken away and put back in the same transaction.

    Args:
        connection: the transaction.
        before: only entries from before this time.
        keeping: the action whose entries stay.
        limit: maximum number of entries.
    """
    old = _old_entries(before, keeping)
    oldest = connection.scalars(select(_AUDIT.c.id).where(*old).order_by(_AUDIT.c.id).limit(limit)).all()
    if not oldest:
        return 0
    trigger = _sqlite_trigger(connection)
    if trigger is not None:
        connection.execute(text("DROP TRIGGER audit_is_not_deleted"))
    deleted = connection.execute(delete(_AUDIT).where(*old, _AUDIT.c.id <= oldest[-1])).rowcount
    if trigger is not None:
        connection.execute(text(trigger))
    return deleted


def _old_entries(before: datetime, keeping: str) -> tuple[ColumnElement[bool], ...]:
    return _AUDIT.c.at < before, _AUDIT.c.action != keeping


def _sqlite_trigger(connection: Connection) -> str | None:
    if connection.dialect.name != "sqlite":
        return None
    query = text("SELECT sql FROM sqlite_master WHERE type = 'trigger' AND name = 'audit_is_not_deleted'")
    return connection.execute(query).scalar_one_or_none()
