"""What the server adds to PostgreSQL's driver, psycopg. `batches` loads this where that is the driver."""

from collections.abc import Sequence
from typing import Any, Self

import psycopg
from psycopg.types.string import StrDumperUnknown
from typing_extensions import override


def connect(*arguments: Any, context: Any, init_command: str = "", **options: Any) -> psycopg.Connection[Any]:
    """Open a connection with the additions of this module.

    Args:
        arguments: as psycopg takes them.
        context: as psycopg takes it.
        init_command: statements that the session begins with. PyMySQL has such an option too. Settings in psycopg's
            own `options` would not pass PgBouncer.
        options: as psycopg takes them.
    """
    context.adapters.register_dumper(str, TextDumper)
    connection = psycopg.connect(*arguments, context=context, cursor_factory=PipelineCursor, **options)
    if init_command:
        connection.autocommit = True
        connection.execute(init_command)
        connection.autocommit = False
    return connection


class TextDumper(StrDumperUnknown):
    """Replaces NUL, which PostgreSQL takes in no text. The error of a training may contain it."""

    @override
    def dump(self, obj: str) -> Any:
        """Return a text as it is sent."""
        return super().dump(obj.replace("\0", "\N{REPLACEMENT CHARACTER}"))


class PipelineCursor(psycopg.Cursor[Any]):
    """A cursor that sends statements together, in psycopg's pipeline mode. The rows are those of the last one."""

    rowcounts: Sequence[int] = ()
    """The number of rows that each statement has found."""

    @override
    def execute(self, query: Any, params: Any = None, **options: Any) -> Self:
        """Run a statement, or all statements of a batch.

        Args:
            query: the statement. Of a batch, it is only for the log.
            params: the statement's parameters. Of a batch, a tuple of statements with their parameters.
            options: as psycopg takes them.
        """
        if not isinstance(params, tuple):
            return super().execute(query, params, **options)
        *before, last = params
        with self.connection.pipeline():
            cursors = [self.connection.execute(*statement) for statement in before]
            super().execute(*last)
        self.rowcounts = [*(cursor.rowcount for cursor in cursors), self.rowcount]
        return self
