"""Rows of the audit log. They are added and read, never changed.

What an action is and who an actor is: `backend.usecases.audit`.
"""

from collections import Counter
from collections.abc import Sequence
from datetime import timedelta

from sqlalchemy import ColumnElement, Select, func, select
from sqlalchemy.orm import Session

from backend.database.models import AuditEntry
from backend.database.store import begins_with, count_rows, now


def add_entry(session: Session, *, actor: str, address: str, action: str, job_id: str | None, detail: str) -> None:
    """Add an entry, with the database's time."""
    session.add(AuditEntry(at=now(session), actor=actor, address=address, action=action, job_id=job_id, detail=detail))


def page_of_entries(
    session: Session, prefix: str | None, job_id: str | None, offset: int, limit: int
) -> tuple[int, Sequence[AuditEntry]]:
    """How many entries there are, and a part of them, newest first.

    Args:
        session: the transaction.
        prefix: only entries about jobs whose ids start with it; None: all entries.
        job_id: only entries about this job; None: all entries.
        offset: how many to skip.
        limit: how many to return at most.
    """
    found: Select[AuditEntry] = select(AuditEntry).where(*begins_with(AuditEntry.job_id, prefix))
    if job_id is not None:
        found = found.where(AuditEntry.job_id == job_id)
    page = found.order_by(AuditEntry.id.desc()).offset(offset).limit(limit)
    return count_rows(session, found), session.scalars(page).all()


def count_by_actor(session: Session, actor: str, actions: Sequence[str], within_s: float) -> Counter[str]:
    """How often an actor took each of some actions in the last `within_s` seconds."""
    return _count(session, AuditEntry.actor == actor, actions, within_s)


def count_by_address(session: Session, address: str, actions: Sequence[str], within_s: float) -> Counter[str]:
    """How often each of some actions came from an address in the last `within_s` seconds."""
    return _count(session, AuditEntry.address == address, actions, within_s)


def _count(session: Session, of: ColumnElement[bool], actions: Sequence[str], within_s: float) -> Counter[str]:
    recent = AuditEntry.at > now(session) - timedelta(seconds=within_s)
    counts = select(AuditEntry.action, func.count()).where(of, AuditEntry.action.in_(actions), recent)
    counted: Counter[str] = Counter()
    for action, count in session.execute(counts.group_by(AuditEntry.action)):
        counted[action] = count
    return counted
