"""Run a use case as one transaction, and retry it as a whole.

So a use case must be repeatable until its commit. After the commit, the caller's keys (`run_id`, `report_number`) make
a repeated call safe: the use case looks them up inside the transaction.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from threading import Lock
from typing import Concatenate, ParamSpec, TypeVar

import structlog
from sqlalchemy import Connection, Engine
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, InternalError, OperationalError, SQLAlchemyError
from sqlalchemy.orm import Session
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    stop_after_attempt,
    stop_after_delay,
    wait_random_exponential,
)

from ..errors import DatabaseUnavailable
from . import faults
from .extensions import READ_ONLY, SQLITE_BUSY_TIMEOUT_MS, db

__all__ = ["Connection", "Session", "read_only", "session_transaction", "transaction"]

log = structlog.get_logger(__name__)

P = ParamSpec("P")
R = TypeVar("R")
UseCase = Callable[Concatenate[Session, P], R]

ATTEMPTS = 8
BACKOFF_S = 0.02
"""Longest wait before the first retry. It doubles with each retry; the wait is random and up to that long."""
PATIENCE_S = 20.0
"""No attempt starts later than this, because a caller waits for the answer."""
_writer = Lock()

# Errors of the database, not of the statements sent to it. Other errors are faults of this program.
_FAILURES = (OperationalError, InterfaceError, InternalError, IntegrityError)


def transaction(use_case: Callable[Concatenate[Connection, P], R]) -> Callable[P, R]:
    """Run a use case in a transaction of its own: commit on return, roll back on any exception.

    Raises:
        DatabaseUnavailable: the transaction failed, also when retried.
    """

    @wraps(use_case)
    def run_once(*args: P.args, **kwargs: P.kwargs) -> R:
        # The transaction begins with the first statement. So a call that is refused before it locks no row.
        engine = db.engine
        with _one_writer(engine), engine.connect() as connection:
            answer = use_case(connection, *args, **kwargs)
            connection.commit()
            return answer

    return _retried(run_once)


@contextmanager
def _one_writer(engine: Engine) -> Iterator[None]:
    """Let the transactions of this process follow each other if the database is SQLite, which takes one at a time.

    SQLite itself looks from time to time whether another transaction has ended, and lets some callers wait for long.
    """
    taken = engine.dialect.name == "sqlite" and _writer.acquire(timeout=SQLITE_BUSY_TIMEOUT_MS / 1000)
    try:
        yield
    finally:
        if taken:
            _writer.release()


def session_transaction(use_case: UseCase[P, R]) -> Callable[P, R]:
    """Do the same as `transaction` for a use case that works with the ORM. It takes longer."""

    @wraps(use_case)
    def run_once(*args: P.args, **kwargs: P.kwargs) -> R:
        with Session(db.engine, expire_on_commit=False, autoflush=False) as session, session.begin():
            return use_case(session, *args, **kwargs)

    return _retried(run_once)


def _retried(run_once: Callable[P, R]) -> Callable[P, R]:
    @wraps(run_once)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return _retrying(run_once, *args, **kwargs)
        except SQLAlchemyError as error:
            if not _is_failure(error):
                raise
            attempt = _retrying.statistics["attempt_number"]
            log.exception("transaction_failed", use_case=run_once.__name__, attempt=attempt)
            raise DatabaseUnavailable(faults.cause(error)) from error

    return run


def read_only(use_case: UseCase[P, R]) -> Callable[P, R]:
    """Run a use case that only reads, without a lock. Each statement sees the transactions committed before it.

    Raises:
        DatabaseUnavailable: a statement failed.
    """

    @retrying_once.wraps
    @wraps(use_case)
    def run_once(*args: P.args, **kwargs: P.kwargs) -> R:
        with Session(db.engine.execution_options(**{READ_ONLY: True})) as session:
            return use_case(session, *args, **kwargs)

    @wraps(use_case)
    def run(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return run_once(*args, **kwargs)
        except SQLAlchemyError as error:
            if not _is_failure(error):
                raise
            log.exception("read_failed", use_case=use_case.__name__)
            raise DatabaseUnavailable(faults.cause(error)) from error

    return run


def _is_failure(error: SQLAlchemyError) -> bool:
    """Whether the database failed, or lacks what the operator has to provide. Else it is a fault of this program."""
    return isinstance(error, _FAILURES) or faults.cause(error) is not None


def _is_transient(error: BaseException) -> bool:
    """Whether the same transaction may succeed when it runs again."""
    if isinstance(error, IntegrityError):  # the same call was sent twice at once; the next attempt finds its row
        return True
    if not (isinstance(error, DBAPIError) and (isinstance(error, _FAILURES) or error.connection_invalidated)):
        return False
    return faults.cause(error) is None and faults.is_passing(error)


def _is_disconnected(error: BaseException) -> bool:
    """Whether the connection was gone. The pool then replaces all its connections, so no call checks one beforehand."""
    return isinstance(error, DBAPIError) and error.connection_invalidated


def _log_retry(attempt: RetryCallState) -> None:
    error = attempt.outcome.exception() if attempt.outcome else None
    use_case = getattr(attempt.fn, "__name__", "")
    log.info(
        "transaction_retried",
        use_case=use_case,
        attempt=attempt.attempt_number,
        error=str(getattr(error, "orig", error)),
    )


_retrying = Retrying(
    stop=stop_after_attempt(ATTEMPTS) | stop_after_delay(PATIENCE_S),
    wait=wait_random_exponential(multiplier=BACKOFF_S),
    retry=retry_if_exception(_is_transient),
    before_sleep=_log_retry,
    reraise=True,
)
retrying_once = Retrying(  # for reads: a connection may have been gone for long
    stop=stop_after_attempt(2), retry=retry_if_exception(_is_disconnected), before_sleep=_log_retry, reraise=True
)
