"""Who did what to which job, when, and from where: written in the transaction of the deed, and never changed.

Reports are not in it: each is kept for itself, with its trial.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from sqlalchemy import Select, func, select

from backend.models import AuditEntry, utc_now
from backend.transactions import Session, reading


class Action(StrEnum):
    """What can be done."""

    REGISTER = "register"
    ASK = "ask"
    END = "end trial"
    RESET = "reset"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"
    MAKE_TOKEN = "make token"  # noqa: S105 - none
    REVOKE_TOKEN = "revoke token"  # noqa: S105 - none
    MAKE_USER = "make user"
    CHANGE_USER = "change user"
    TRY_LOGIN = "try to log in"
    REFUSE_LOGIN = "refuse to log in"
    LOG_IN = "log in"
    LOG_OUT = "log out"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who does something: a token, a user, a program of the server's machine, or its operator at a shell."""

    name: str
    address: str = ""
    """Where the call comes from."""
    job_id_prefix: str | None = None
    """The actor knows of jobs whose ids begin so, and of no others. None: of all."""

    def may_know(self, job_id: str) -> bool:
        """Whether a job may exist for this actor."""
        return self.job_id_prefix is None or job_id.startswith(self.job_id_prefix)


COMMAND_LINE = Actor("command line")


def record(session: Session, by: Actor, action: Action, job_id: str | None = None, detail: str = "") -> None:
    """Write down a deed, in its own transaction."""
    at = session.scalars(select(utc_now())).one()
    row = AuditEntry(at=at, actor=by.name, address=by.address, action=action, job_id=job_id, detail=detail)
    session.add(row)


@reading
def page(session: Session, by: Actor, job_id: str | None, offset: int, limit: int) -> tuple[int, Sequence[AuditEntry]]:
    """How many entries there are, and a part of them, newest first.

    Args:
        session: the transaction.
        by: who reads; one that knows of a part of the jobs reads of these alone.
        job_id: only entries about this job.
        offset: how many to leave out.
        limit: how many to return at most.
    """
    found: Select[AuditEntry] = select(AuditEntry)
    if job_id is not None:
        found = found.where(AuditEntry.job_id == job_id)
    if by.job_id_prefix is not None:
        found = found.where(func.substr(AuditEntry.job_id, 1, len(by.job_id_prefix)) == by.job_id_prefix)
    total = session.scalar(select(func.count()).select_from(found.subquery())) or 0
    return total, session.scalars(found.order_by(AuditEntry.id.desc()).offset(offset).limit(limit)).all()
