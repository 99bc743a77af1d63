"""The Flask extensions, made once and bound to an application in `app.py`."""

import sqlite3
import time
from typing import Any

from flask_migrate import Migrate
from flask_sqlalchemy import SQLAlchemy
from flask_sqlalchemy.session import Session
from sqlalchemy import Connection, Engine, event
from sqlalchemy.orm import DeclarativeBase


class Base(DeclarativeBase):
    """Base of all tables."""


class _ReadOnlySession(Session):
    """What Flask-Admin's tables read with; everything else opens sessions of its own (`transactions.py`)."""

    def get_bind(self, *args: Any, **kwargs: Any) -> Any:
        return super().get_bind(*args, **kwargs).execution_options(**{READ_ONLY: True})


READ_ONLY = "zeus_bso_read_only"
"""Execution option of a connection that will not write."""

db = SQLAlchemy(model_class=Base, session_options={"class_": _ReadOnlySession})
migrate = Migrate()

SQLITE_BUSY_TIMEOUT_MS = 15_000


@event.listens_for(Engine, "connect")
def _set_up_sqlite(connection: Any, _record: Any) -> None:
    """Set up a new SQLite connection so that several processes can share the file.

    Python's driver would begin transactions by itself, deferred: such updates can be lost or fail with
    "database is locked" however long the timeout. So it is told not to, and `_begin` begins them.
    """
    if isinstance(connection, sqlite3.Connection):
        connection.isolation_level = None
        for pragma in (f"busy_timeout={SQLITE_BUSY_TIMEOUT_MS}", "synchronous=FULL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        _use_wal(connection)


def _use_wal(connection: sqlite3.Connection) -> None:
    """Switch to a write-ahead log, for which SQLite does not wait where other processes switch a new file, too."""
    give_up_at = time.monotonic() + SQLITE_BUSY_TIMEOUT_MS / 1000
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > give_up_at:
                raise
        time.sleep(0.01)


@event.listens_for(Engine, "begin")
def _begin(connection: Connection) -> None:
    if connection.dialect.name == "sqlite":
        read_only = connection.get_execution_options().get(READ_ONLY, False)
        connection.exec_driver_sql("BEGIN" if read_only else "BEGIN IMMEDIATE")
