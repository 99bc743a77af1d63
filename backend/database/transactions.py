"""A use case is one transaction, carried through or not at all, and retried whole.

Whatever a use case does must therefore be repeatable up to its commit; the caller's keys (`run_id`,
`report_number`), looked up inside the transaction, make it repeatable beyond.
"""

import random
import time
from collections.abc import Callable
from functools import wraps
from typing import Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError
from sqlalchemy.orm import Session

from backend.database.extensions import READ_ONLY, db
from backend.errors import DatabaseUnavailable

__all__ = ["Session", "read_only", "transaction"]

log = structlog.get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
UseCase = Callable[Concatenate[Session, P], R]

ATTEMPTS = 8
BACKOFF_S = 0.01
PATIENCE_S = 20.0
"""No new attempt is begun after this long: the caller has better things to do than to wait."""

# Of the database and not of what it was told; other errors are faults of this program.
_FAILURES = (OperationalError, InterfaceError, InternalError, IntegrityError)
# Lock wait timeout, deadlock, changed since read (MariaDB), not ready (Galera), server gone or not there.
_TRANSIENT_MYSQL = {1205, 1213, 1020, 1047, 2003, 2006, 2013}


def transaction(use_case: UseCase[P, R]) -> Callable[P, R]:
    """Run a use case in a transaction of its own: commit on return, roll back on any exception.

    Raises:
        DatabaseUnavailable: it could not be carried through, even after retries.
    """

    @wraps(use_case)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        deadline = time.monotonic() + PATIENCE_S
        for attempt in range(1, ATTEMPTS + 1):
            try:
                # What changes is written at the end, in one statement per row.
                with Session(db.engine, expire_on_commit=False, autoflush=False) as session, session.begin():
                    return use_case(session, *args, **kwargs)
            except _FAILURES as error:
                if attempt == ATTEMPTS or time.monotonic() > deadline or not _transient(error):
                    log.exception("transaction_failed", use_case=use_case.__name__, attempt=attempt)
                    raise DatabaseUnavailable from error
                log.info("transaction_retried", use_case=use_case.__name__, attempt=attempt, error=str(error.orig))
            time.sleep(random.uniform(0, BACKOFF_S * 2**attempt))  # noqa: S311 - jitter, not a secret
        raise AssertionError("unreachable: the last attempt returns or raises")

    return run


def read_only(use_case: UseCase[P, R]) -> Callable[P, R]:
    """Run a use case that only reads, without a lock. Each statement sees what was committed before it.

    Raises:
        DatabaseUnavailable: the database did not answer.
    """

    @wraps(use_case)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with Session(db.engine.execution_options(**{READ_ONLY: True})) as session:
                return use_case(session, *args, **kwargs)
        except _FAILURES as error:
            log.exception("read_failed", use_case=use_case.__name__)
            raise DatabaseUnavailable from error

    return run


def _transient(error: DBAPIError) -> bool:
    """Whether the same transaction may succeed when it is run again."""
    if isinstance(error, IntegrityError):  # a twin of this call was first; the next attempt finds its row
        return True
    arguments = getattr(error.orig, "args", ())
    code = arguments[0] if arguments else None
    return code in _TRANSIENT_MYSQL or "database is locked" in str(error.orig)
