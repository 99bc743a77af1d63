"""Send several statements in one round trip, where the driver can: to MySQL and MariaDB, and to PostgreSQL.

A round trip costs both sides more than a small statement does (docs/measured.md), and the job is locked meanwhile. The
rows that are loaded and stored this way are in `rows`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import pymysql
from pymysql.constants import CLIENT
from sqlalchemy import Connection, Dialect, Engine, Insert, Select, Update, event
from typing_extensions import override

Statement = tuple[Select[Any] | Insert | Update, Mapping[str, Any]]
"""A statement and the values of its parameters."""

_PARAMETER = re.compile(r"%\((\w+)\)s")


class BatchCursor(pymysql.cursors.Cursor):
    """A cursor whose `execute` runs all statements of a text. The rows are those of the last one."""

    rowcounts: Sequence[int] = ()
    """The number of rows that each statement has found."""

    @override
    def execute(self, query: str, args: object = None) -> int:
        counts = [super().execute(query, args)]
        while self.nextset():
            counts.append(self.rowcount)
        self.rowcounts = counts
        return counts[-1]


@event.listens_for(Engine, "do_connect")
def _allow_batches(dialect: Dialect, _record: Any, arguments: Any, options: dict[str, Any]) -> Any:
    """Prepare a connection's options, or make the connection: None leaves that to SQLAlchemy."""
    if dialect.driver == "pymysql":
        options["cursorclass"] = BatchCursor
        options["client_flag"] |= CLIENT.MULTI_STATEMENTS
    elif dialect.driver == "psycopg":
        from .postgresql import connect  # the driver is not always installed

        return connect(*arguments, **options)
    return None


def execute(connection: Connection, *statements: Statement) -> tuple[Sequence[int], Sequence[Sequence[Any]]]:
    """Run statements, one after the other.

    Args:
        connection: the transaction.
        statements: changes. The last one may also be a query. A parameter must not stand for a list.

    Returns:
        How many rows each change has found, and the rows of the query. With a driver that runs several statements at
        once, these are as the driver returns them.
    """
    if connection.dialect.driver in ("pymysql", "psycopg"):
        texts: list[str] = []
        sent: list[Any] = []
        for statement, values in statements:
            text, bind = _prepare(statement, connection.dialect)
            texts.append(text)
            if connection.dialect.driver == "pymysql":
                sent += bind(values)
            else:
                sent.append((text, bind(values)))
        result = connection.exec_driver_sql(";".join(texts), tuple(sent))
        return result.context.cursor.rowcounts, result.all() if result.returns_rows else ()
    counts: list[int] = []
    rows: Sequence[Sequence[Any]] = ()
    for statement, values in statements:
        result = connection.execute(statement, values)
        if statement.is_select:  # with some drivers, an INSERT returns its new key
            rows = result.all()
        else:
            counts.append(result.rowcount)
    return counts, rows


@lru_cache
def _prepare(
    statement: Select[Any] | Insert | Update, dialect: Dialect
) -> tuple[str, Callable[[Mapping[str, Any]], Sequence[Any]]]:
    """Return the text of a statement, and a function that puts the values of its parameters into their order."""
    compiled = statement.compile(dialect=dialect)
    order = tuple(_PARAMETER.findall(compiled.string))
    fixed, converters = {}, {}
    for name in order:
        parameter = compiled.binds[name]
        convert = parameter.type.dialect_impl(dialect).bind_processor(dialect)
        if not parameter.required:
            fixed[name] = parameter.effective_value
        if convert is not None:
            converters[name] = convert

    def bind(values: Mapping[str, Any]) -> Sequence[Any]:
        known = {**fixed, **values}
        for name, convert in converters.items():
            known[name] = convert(known[name])
        return [known[name] for name in order]

    return _PARAMETER.sub("%s", compiled.string), bind
