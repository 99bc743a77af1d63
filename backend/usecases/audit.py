"""The audit log: which actor did what to which job, when, and from which address.

An entry is written in the transaction of its action and never changed. `retention` removes old ones. Reports are not in
the log: each is stored with its trial. The rows live in `backend.database.audit_log`.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from lightning_bso.wire import MAX_ID_LENGTH, AuditPage

from ..database import audit_log
from ..database.models import AuditEntry
from ..database.transactions import Connection, Session, read_only
from ..errors import InvalidField, UnknownJob
from .records import audit_record


class Action(StrEnum):
    """An action in the audit log. The values are stored in the database."""

    REGISTER = "register"
    ASK = "ask"
    END = "end trial"
    RESET = "reset"
    PAUSE = "pause"
    RESUME = "resume"
    DELETE = "delete"
    NOTE = "note"
    CREATE_TOKEN = "make token"  # noqa: S105 - not a secret
    REVOKE_TOKEN = "revoke token"  # noqa: S105 - not a secret
    CREATE_USER = "make user"
    CHANGE_USER = "change user"
    TRY_LOGIN = "try to log in"
    REFUSE_LOGIN = "refuse to log in"
    LOG_IN = "log in"
    LOG_OUT = "log out"
    PRUNE = "remove old rows"


@dataclass(frozen=True, slots=True)
class Actor:
    """The actor of an action: a token, a user, a program on the server's machine, or the operator at a shell."""

    name: str
    address: str = ""
    """Address that the call comes from; empty on the command line."""
    job_id_prefix: str | None = None
    """Limits the actor to jobs whose ids start with this. None: all jobs."""

    def may_see(self, job_id: str) -> bool:
        """Whether the actor may see a job. A hidden job is answered like a missing one."""
        return self.job_id_prefix is None or job_id.startswith(self.job_id_prefix)

    def check_may_see(self, job_id: str) -> None:
        """Check that the actor may see a job.

        Raises:
            UnknownJob: it may not.
        """
        if not self.may_see(job_id):
            raise UnknownJob(job_id)

    def may_grant(self, job_id_prefix: str | None) -> bool:
        """Whether the actor may give another actor access to the jobs of a prefix; None: to all jobs."""
        return self.job_id_prefix is None or (job_id_prefix or "").startswith(self.job_id_prefix)


COMMAND_LINE = Actor("command line")


def jobs_of(job_id_prefix: str | None) -> str:
    """Say in words which jobs a prefix stands for."""
    return "all jobs" if job_id_prefix is None else f"jobs beginning with {job_id_prefix}"


def check_prefix(job_id_prefix: str | None) -> None:
    """Check the prefix that is to limit a token or a user. None stands for all jobs.

    Raises:
        InvalidField: the prefix is blank, too long or not printable.
    """
    if job_id_prefix is None:
        return
    if not job_id_prefix.strip():  # an unset shell variable must not give access to all jobs
        raise InvalidField("prefix", "it is empty or blank; for access to all jobs leave it out")
    if len(job_id_prefix) > MAX_ID_LENGTH or not job_id_prefix.isprintable():
        raise InvalidField("prefix", f"it must have at most {MAX_ID_LENGTH} printable characters")


def record(connection: Connection, by: Actor, action: Action, job_id: str | None = None, detail: str = "") -> None:
    """Record an action, in the transaction that carries it out."""
    audit_log.add_entry(connection, actor=by.name, address=by.address, action=action, job_id=job_id, detail=detail)


def entry(at: datetime, by: Actor, action: Action, job_id: str, detail: str) -> AuditEntry:
    """Return an entry, to be stored with the other rows of the transaction that carries the action out."""
    return audit_log.new_entry(at, actor=by.name, address=by.address, action=action, job_id=job_id, detail=detail)


@read_only
def page(session: Session, by: Actor, job_id: str | None, offset: int, limit: int) -> AuditPage:
    """Return a page of the audit log, newest entries first.

    Args:
        session: the transaction.
        by: the actor that reads. An actor limited to some jobs reads only the entries about these jobs.
        job_id: only entries about this job; None: all entries.
        offset: entries to skip.
        limit: maximum number of entries to return.
    """
    total, rows = audit_log.page_of_entries(session, by.job_id_prefix, job_id, offset, limit)
    return AuditPage(total=total, entries=[audit_record(row) for row in rows])
