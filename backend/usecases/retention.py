"""Remove what is old: the reports of ended trials, and audit entries. The sums and the trials stay.

The database grows with the reports, one row for each validation (docs/scaling.md). Nothing is removed by itself.
"""

from dataclasses import dataclass
from datetime import datetime

from ..database import retention, store
from ..database.transactions import Connection, Session, read_only, transaction
from ..errors import UnknownJob
from . import audit
from .audit import Action, Actor

TRIALS_AT_ONCE = 100
"""Trials whose reports one transaction deletes. It locks their job meanwhile."""


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed, or would be."""

    before: datetime
    """Older rows than this are removed, UTC."""
    reports: int = 0
    trials: int = 0
    """Number of trials that these reports belong to."""
    entries: int = 0
    """Number of entries of the audit log."""


def prune_reports(days: int, by: Actor, *, dry_run: bool) -> Removed:
    """Remove the reports of trials that ended some days ago, but for the last one of each.

    Running trials and calibration runs keep all their reports. A job is locked for `TRIALS_AT_ONCE` trials at a time.

    Args:
        days: only trials that ended at least this many days ago.
        by: the actor.
        dry_run: whether to count only.
    """
    before = _days_ago(days)
    reports = trials = 0
    for job_id in _job_ids():
        old_trials = _old_trials(job_id, before)
        for first in range(0, len(old_trials), TRIALS_AT_ONCE):
            some = old_trials[first : first + TRIALS_AT_ONCE]
            if not dry_run:
                try:
                    _delete_reports(job_id, some, before, by)
                except UnknownJob:  # deleted meanwhile, with its reports
                    break
            reports += sum(old.earlier for old in some)
            trials += len(some)
    return Removed(before, reports=reports, trials=trials)


def prune_audit(days: int, by: Actor, *, dry_run: bool) -> Removed:
    """Remove audit entries that are some days old, but for those about removals, and record that.

    A replay tells from these that reports of a job are missing.

    Args:
        days: only entries that are at least this many days old.
        by: the actor.
        dry_run: whether to count only.
    """
    before = _days_ago(days)
    return Removed(before, entries=_count_entries(before) if dry_run else _delete_entries(before, by))


@read_only
def _days_ago(session: Session, days: int) -> datetime:
    return retention.days_ago(session, days)


@read_only
def _job_ids(session: Session) -> list[str]:
    return list(retention.job_ids(session))


@read_only
def _old_trials(session: Session, job_id: str, before: datetime) -> list[retention.OldTrial]:
    return retention.old_trials(session, job_id, before)


@transaction
def _delete_reports(
    connection: Connection, job_id: str, trials: list[retention.OldTrial], before: datetime, by: Actor
) -> None:
    with store.locked_job(connection, job_id):
        retention.delete_reports(connection, trials)
        reports = sum(old.earlier for old in trials)
        detail = f"reports: {reports}, of trials that ended before {before:%F %T} UTC: {len(trials)}"
        audit.record(connection, by, Action.PRUNE, job_id, detail)


@read_only
def _count_entries(session: Session, before: datetime) -> int:
    return retention.count_audit_entries(session, before, keeping=Action.PRUNE)


@transaction
def _delete_entries(connection: Connection, before: datetime, by: Actor) -> int:
    deleted = retention.delete_audit_entries(connection, before, keeping=Action.PRUNE)
    if deleted:
        audit.record(connection, by, Action.PRUNE, detail=f"audit entries from before {before:%F %T} UTC: {deleted}")
    return deleted
