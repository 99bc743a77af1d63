"""Remove what is old: the reports of ended trials, and audit entries. The sums and the trials stay.

The database grows with the reports, one row for each validation (docs/scaling.md). Nothing is removed by itself.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from ..database import retention, store
from ..database.transactions import Connection, Session, read_only, transaction
from ..errors import UnknownJob
from . import audit
from .audit import Action, Actor

TRIALS_AT_ONCE = 100
"""Trials whose reports one transaction deletes. It locks their job meanwhile."""
ENTRIES_AT_ONCE = 10_000
"""Entries of the audit log that one transaction deletes. A database ends a statement that takes too long."""


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
        old_trials = _old_trials(job_id, before, limit=None if dry_run else 1)
        if old_trials and not dry_run:
            old_trials = list(_prune_job(job_id, before, by))
        reports += sum(old.earlier for old in old_trials)
        trials += len(old_trials)
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
    if dry_run:
        return Removed(before, entries=_count_entries(before))
    entries = 0
    while deleted := _delete_some_entries(before, by):
        entries += deleted
    return Removed(before, entries=entries)


def _prune_job(job_id: str, before: datetime, by: Actor) -> Iterator[retention.OldTrial]:
    after = 0
    try:
        while pruned := _prune_some(job_id, before, after, by):
            yield from pruned
            after = pruned[-1].id
    except UnknownJob:  # deleted meanwhile, with its reports
        return


@read_only
def _days_ago(session: Session, days: int) -> datetime:
    return retention.days_ago(session, days)


@read_only
def _job_ids(session: Session) -> list[str]:
    return list(retention.job_ids(session))


@read_only
def _old_trials(session: Session, job_id: str, before: datetime, limit: int | None) -> list[retention.OldTrial]:
    return retention.old_trials(session, job_id, before, limit=limit)


@transaction
def _prune_some(
    connection: Connection, job_id: str, before: datetime, after: int, by: Actor
) -> list[retention.OldTrial]:
    """Prune the next trials. They are read under the job's lock, so that none of them runs again."""
    with store.locked_job(connection, job_id):
        trials = retention.old_trials(connection, job_id, before, after=after, limit=TRIALS_AT_ONCE)
        if trials:
            retention.delete_reports(connection, trials)
            reports = sum(old.earlier for old in trials)
            detail = f"reports: {reports}, of trials that ended before {before:%F %T} UTC: {len(trials)}"
            audit.record(connection, by, Action.PRUNE, job_id, detail)
        return trials


@read_only
def _count_entries(session: Session, before: datetime) -> int:
    return retention.count_audit_entries(session, before, keeping=Action.PRUNE)


@transaction
def _delete_some_entries(connection: Connection, before: datetime, by: Actor) -> int:
    deleted = retention.delete_audit_entries(connection, before, keeping=Action.PRUNE, limit=ENTRIES_AT_ONCE)
    if deleted:
        audit.record(connection, by, Action.PRUNE, detail=f"audit entries from before {before:%F %T} UTC: {deleted}")
    return deleted
