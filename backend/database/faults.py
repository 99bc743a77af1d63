"""Say what a failed statement means for the person who runs the database. `transactions` and `schema` ask here.

A fault that has no line here is passing, as far as is known: the caller waits and tries again.
"""

import sqlite3

from sqlalchemy import exc

from .. import COMMAND

_READ_ONLY = "the database takes no writes (it is read-only); let the server write to the primary"
_FULL = "the database's disk is full; free some space"
_NO_TABLE = f"a table or a column is missing; {COMMAND} db check compares the schema with this program's"
_NO_PRIVILEGE = "the database user lacks a privilege; docs/server.md lists those that the server needs"
_NO_LOGIN = "the database refuses the user or the password of ZEUS_BSO_DATABASE_URL"
_STATEMENT_LOG = "the database writes a statement-based binary log; set its binlog_format to ROW"
_NO_CONNECTION = (
    "the database has no free connection; raise its max_connections, or run fewer server processes and threads"
)
_NO_FREE_CONNECTION = "all connections of this server process to the database are in use; they wait for a slow database"

# Error codes of MySQL and MariaDB.
_CAUSES_MYSQL = {
    **dict.fromkeys((1290, 1792, 1836), _READ_ONLY),
    **dict.fromkeys((1021, 1114), _FULL),
    **dict.fromkeys((1051, 1054, 1146), _NO_TABLE),
    **dict.fromkeys((1044, 1142, 1143, 1227), _NO_PRIVILEGE),
    **dict.fromkeys((1045, 1698), _NO_LOGIN),
    **dict.fromkeys((1040, 1203, 1226), _NO_CONNECTION),
    1665: _STATEMENT_LOG,
}
_OF_THE_SESSION = {1665}
_CAUSES_SQLITE = {sqlite3.SQLITE_READONLY: _READ_ONLY, sqlite3.SQLITE_FULL: _FULL}


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
    return _CAUSES_MYSQL.get(_code(original))


def is_of_the_session(error: BaseException) -> bool:
    """Whether only a new connection can see that the operator has acted, because a session keeps its settings."""
    return _code(error) in _OF_THE_SESSION


def _code(error: BaseException | None) -> int:
    """Return the code of an error of MySQL or MariaDB; 0: it has none."""
    code = next(iter(getattr(error, "args", ())), None)
    return code if isinstance(code, int) else 0
