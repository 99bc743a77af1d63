"""Who did what to which job, when, and from where: written in the transaction of the deed, and never changed.

Reports are not in it: each is kept for itself, with its trial.
"""

from dataclasses import dataclass
from enum import StrEnum

from backend.database import audit_log
from backend.database.transactions import Session, read_only
from backend.usecases.records import audit_record
from lightning_bso.wire import AuditPage


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
    """Record an action, in the transaction that carries it out."""
    audit_log.add_entry(session, actor=by.name, address=by.address, action=action, job_id=job_id, detail=detail)


@read_only
def page(session: Session, by: Actor, job_id: str | None, offset: int, limit: int) -> AuditPage:
    """A part of the audit log, newest first.

    Args:
        session: the transaction.
        by: who reads; an actor limited to a part of the jobs reads about these alone.
        job_id: only entries about this job.
        offset: how many to skip.
        limit: how many to return at most.
    """
    total, rows = audit_log.page_of_entries(session, by.job_id_prefix, job_id, offset, limit)
    return AuditPage(total=total, entries=[audit_record(row) for row in rows])
