"""Rows of the audit log. They are added and read, never changed. `retention` removes old ones.

Actions and actors are defined in `backend.usecases.audit`.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import cast

from sqlalchemy import ColumnElement, Connection, Select, Table, func, insert, select
from sqlalchemy.orm import Session

from . import rows
from .models import AuditEntry, utc_now
from .queries import begins_with, count_rows
from .store import now

_ADD = insert(cast(Table, AuditEntry.__table__)).values(at=utc_now())


def add_entry(
    connection: Connection, *, actor: str, address: str, action: str, job_id: str | None, detail: str
) -> None:
    """Add an entry, with the database's time."""
    entry = {"actor": actor, "address": address, "action": action, "job_id": job_id, "detail": detail}
    connection.execute(_ADD, entry)


def new_entry(at: datetime, *, actor: str, address: str, action: str, job_id: str | None, detail: str) -> AuditEntry:
    """Return an entry, to be stored."""
    return rows.new(AuditEntry, at=at, actor=actor, address=address, action=action, job_id=job_id, detail=detail)


def page_of_entries(
    session: Session, prefix: str | None, job_id: str | None, offset: int, limit: int
) -> tuple[int, Sequence[AuditEntry]]:
    """Count the entries, and return a page of them, newest first.

    Args:
        session: the transaction.
        prefix: only entries about jobs whose ids start with it; None: all entries.
        job_id: only entries about this job; None: all entries.
        offset: entries to skip.
        limit: maximum number of entries to return.
    """
    entries: Select[AuditEntry] = select(AuditEntry).where(*begins_with(AuditEntry.job_id, prefix))
    if job_id is not None:
        entries = entries.where(AuditEntry.job_id == job_id)
    page = entries.order_by(AuditEntry.id.desc()).offset(offset).limit(limit)
    return count_rows(session, entries), session.scalars(page).all()


def has_entry(connection: Connection, job_id: str, action: str, since: datetime) -> bool:
    """Whether an action on a job has been recorded since a time."""
    of_job = (AuditEntry.job_id == job_id, AuditEntry.action == action, AuditEntry.at >= since)
    return connection.execute(select(AuditEntry.id).where(*of_job).limit(1)).first() is not None


def count_by_actor(session: Session, actor: str, actions: Sequence[str], within_s: float) -> Counter[str]:
    """Count each of some actions that an actor took in the last `within_s` seconds."""
    return _count(session, AuditEntry.actor == actor, actions, within_s)


def count_by_address(session: Session, address: str, actions: Sequence[str], within_s: float) -> Counter[str]:
    """Count each of some actions that came from an address in the last `within_s` seconds."""
    return _count(session, AuditEntry.address == address, actions, within_s)


def _count(session: Session, source: ColumnElement[bool], actions: Sequence[str], within_s: float) -> Counter[str]:
    recent = AuditEntry.at > now(session) - timedelta(seconds=within_s)
    query = select(AuditEntry.action, func.count()).where(source, AuditEntry.action.in_(actions), recent)
    counts: Counter[str] = Counter()
    for action, count in session.execute(query.group_by(AuditEntry.action)):
        counts[action] = count
    return counts
