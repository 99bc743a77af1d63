"""Say what a failed statement means for the person who runs the database. `transactions` and `schema` ask here.

A fault that has no line here is passing, as far as is known: the caller waits and tries again.
"""

import sqlite3

from sqlalchemy import exc

from .. import COMMAND

_READ_ONLY = "the database takes no writes (it is read-only); let the server write to the primary"
_READ_ONLY_FILE = "the database takes no writes (it is read-only); let the server write to the file and its folder"
_FULL = "the database's disk is full; free some space"
_NO_TABLE = f"a table or a column is missing; {COMMAND} db check compares the schema with this program's"
_NO_PRIVILEGE = "the database user lacks a privilege; docs/server.md lists those that the server needs"
_NO_LOGIN = "the database refuses the user or the password of ZEUS_BSO_DATABASE_URL"
_STATEMENT_LOG = "the database writes a statement-based binary log; set its binlog_format to ROW"
_NO_CONNECTION = (
    "the database has no free connection; raise its max_connections, or run fewer server processes and threads"
)
_NO_FREE_CONNECTION = "all connections of this server process to the database are in use; they wait for a slow database"

# Error codes of MySQL and MariaDB, which are numbers, and SQLSTATEs of PostgreSQL.
_CAUSES: dict[int | str, str] = {
    **dict.fromkeys((1290, 1792, 1836), _READ_ONLY),
    **dict.fromkeys((1021, 1114), _FULL),
    **dict.fromkeys((1051, 1054, 1146), _NO_TABLE),
    **dict.fromkeys((1044, 1142, 1143, 1227), _NO_PRIVILEGE),
    **dict.fromkeys((1045, 1698), _NO_LOGIN),
    **dict.fromkeys((1040, 1203, 1226), _NO_CONNECTION),
    1665: _STATEMENT_LOG,
    "25006": _READ_ONLY,
    "53100": _FULL,
    **dict.fromkeys(("42P01", "42703"), _NO_TABLE),
    "42501": _NO_PRIVILEGE,
    **dict.fromkeys(("28000", "28P01"), _NO_LOGIN),
    "53300": _NO_CONNECTION,
}
# 0A000: a migration has changed the columns of a statement that PostgreSQL has prepared.
_OF_THE_SESSION = {1665, "25006", "0A000"}
# Lock wait timeout, deadlock, changed since read (MariaDB), not ready (Galera), server gone or not there. And the same
# of PostgreSQL: serialization failure, deadlock, lock timeout, and a server that shuts down, has crashed or starts.
_PASSING: set[int | str] = {1205, 1213, 1020, 1047, 2003, 2006, 2013}
_PASSING |= {"40001", "40P01", "55P03", "57P01", "57P02", "57P03"}
# PostgreSQL's driver has no SQLSTATE of a connection that was refused, only the server's words.
_REFUSALS = {
    "password authentication failed": _NO_LOGIN,
    "no password supplied": _NO_LOGIN,
    "no pg_hba.conf entry": _NO_LOGIN,
    "too many clients already": _NO_CONNECTION,
    "too many connections for": _NO_CONNECTION,
    "remaining connection slots are reserved": _NO_CONNECTION,
}
_CAUSES_SQLITE = {sqlite3.SQLITE_READONLY: _READ_ONLY_FILE, sqlite3.SQLITE_FULL: _FULL}


def cause(error: exc.SQLAlchemyError) -> str | None:
    """Return what is wrong with the database, and what its operator can do. None: nothing that would last is known.

    The text contains nothing of the statement, the data or the credentials.
    """
    if isinstance(error, exc.TimeoutError):
        return _NO_FREE_CONNECTION
    original = error.orig if isinstance(error, exc.DBAPIError) else None
    if isinstance(original, sqlite3.Error):
        if "no such table" in str(original) or "no such column" in str(original):
            return _NO_TABLE
        return _CAUSES_SQLITE.get(getattr(original, "sqlite_errorcode", 0) & 0xFF)  # without the extended part
    if (code := _code(original)) is not None:
        return _CAUSES.get(code)
    return next((cause for words, cause in _REFUSALS.items() if words in str(original)), None)


def is_passing(error: exc.DBAPIError) -> bool:
    """Whether the same transaction may succeed when it runs again. The error must be a failure of the database."""
    if error.connection_invalidated or "database is locked" in str(error.orig):
        return True
    code = _code(error.orig)
    if code is None:  # PostgreSQL's driver has no connection to it
        return hasattr(error.orig, "pgconn")
    return code in _PASSING


def is_of_the_session(error: BaseException) -> bool:
    """Whether only a new connection can see what has been changed, because a session keeps its settings and plans."""
    return _code(error) in _OF_THE_SESSION


def _code(error: BaseException | None) -> int | str | None:
    """Return the code of an error of MySQL or MariaDB, or the SQLSTATE of PostgreSQL; None: it has none."""
    code = next(iter(getattr(error, "args", ())), None)
    if isinstance(code, int):
        return code
    return getattr(error, "sqlstate", None) or getattr(error, "pgcode", None)  # psycopg2 has its own name for it
