"""The Flask extensions and the setup of SQLite connections. `backend.app` binds the extensions to an application.

Tables live in `models`, transactions in `transactions`.
"""

import sqlite3
import time
from typing import Any, cast

import pymysql
from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from pymysql.constants import SERVER_STATUS
from sqlalchemy import Connection, Engine, ExceptionContext, Pool, event
from sqlalchemy.orm import DeclarativeBase

from . import faults


class Base(DeclarativeBase):
    """Base of all tables."""


READ_ONLY = "zeus_bso_read_only"
"""Execution option of a connection that only reads."""

db = SQLAlchemy(model_class=Base)
migrate = Migrate()

SQLITE_BUSY_TIMEOUT_MS = 15_000
WSREP_SYNC_WAIT = 3
"""Before reads (1), updates and deletions (2). Within a transaction only its first statement waits."""


@event.listens_for(Engine, "connect")
def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """Set up a new SQLite connection so that several processes can share the file.

    Python's driver starts deferred transactions automatically. In a deferred transaction an update can be lost, or fail
    with "database is locked" regardless of the timeout. So this function turns that off, and `_begin` starts the
    transactions.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = None
        for pragma in (f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        _use_wal(connection)


@event.listens_for(Engine, "connect")
def _set_up_galera(connection: Any, _record: Any) -> None:
    """Let the transactions on a Galera node begin after all that the cluster has committed before.

    Otherwise a node that has just become the writer may refuse a call, because it lacks what another has acknowledged.
    """
    if isinstance(connection, pymysql.Connection):
        with connection.cursor() as cursor:
            if cursor.execute("SHOW VARIABLES LIKE 'wsrep_on'") and cursor.fetchall()[0][1] == "ON":
                cursor.execute(f"SET SESSION wsrep_sync_wait = {WSREP_SYNC_WAIT}")


@event.listens_for(Pool, "reset")
def _end_transaction(connection: Any, _record: Any, _state: Any) -> None:
    """Roll back what a call has left open, for example because its COMMIT failed. The usual call leaves nothing."""
    if isinstance(connection, pymysql.Connection):
        status: int = cast(Any, connection).server_status  # of the server's last answer; the stubs lack it
        if status & SERVER_STATUS.SERVER_STATUS_IN_TRANS:
            connection.rollback()


@event.listens_for(Engine, "handle_error")
def _drop_connections(context: ExceptionContext) -> None:
    """Let the pool replace all connections if theirs are the settings that the operator has to change."""
    if faults.is_of_the_session(context.original_exception):
        context.is_disconnect = True


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log.

    SQLite's busy timeout does not apply while another process switches the same new file. So this function retries.
    """
    deadline = time.monotonic() + SQLITE_BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


@event.listens_for(Engine, "begin")
def _begin(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        read_only = connection.get_execution_options().get(READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
