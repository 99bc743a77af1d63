"""Files to download, streamed in parts: CSV, and Parquet if pyarrow is installed.

What is in them: `backend.usecases.exports`, and the lists of the admin page.
"""

import csv
import io
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from importlib import import_module
from typing import Any, Literal

from flask import Response, stream_with_context

from ..errors import ParquetMissing
from ..usecases.audit import Actor
from ..usecases.exports import TABLES, Row

Format = Literal["csv", "parquet"]
PARQUET = "application/vnd.apache.parquet"
MIME_TYPES = {"csv": "text/csv", "parquet": PARQUET}
ROW_GROUP = 20_000
"""Rows that a Parquet file has in a group. The writer holds one group in memory."""


def download(filename: str, content: Iterator[str] | Iterator[bytes], mimetype: str = "text/csv") -> Response:
    """Stream a file."""
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(stream_with_context(content), mimetype=mimetype, headers=headers)


def exported(name: str, kind: Format, jobs: Collection[int] | None, by: Actor) -> Response:
    """Stream a table of `exports.TABLES`.

    Raises:
        ParquetMissing: Parquet is wanted, and pyarrow is not installed.
    """
    table = TABLES[name]
    parts = table.rows(jobs, by)
    if kind == "parquet":
        return download(f"{name}.parquet", as_parquet(table.columns, parts), PARQUET)
    names = list(table.columns)
    return download(f"{name}.csv", as_csv(names, ([[row[name] for name in names] for row in part] for part in parts)))


def as_csv(labels: Sequence[str], parts: Iterable[Iterable[Sequence[Any]]]) -> Iterator[str]:
    """Rows as CSV, one piece of text per part."""
    yield _csv([labels])
    for rows in parts:
        yield _csv([cell(value) for value in row] for row in rows)


def cell(value: Any) -> Any:
    """A value of a CSV. A quote in front keeps a spreadsheet from running text as a formula."""
    if isinstance(value, datetime):
        return value.isoformat()
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def as_parquet(columns: Mapping[str, type], parts: Iterable[Sequence[Row]]) -> Iterator[bytes]:
    """Rows as Parquet, in pieces.

    Raises:
        ParquetMissing: pyarrow is not installed.
    """
    try:
        pa: Any = import_module("pyarrow")  # large, and needed here alone
        parquet: Any = import_module("pyarrow.parquet")
    except ImportError:
        raise ParquetMissing from None
    types = {datetime: pa.timestamp("us", tz="UTC"), float: pa.float64(), int: pa.int64(), bool: pa.bool_()}
    schema = pa.schema([(name, types.get(kind, pa.string())) for name, kind in columns.items()])

    def pieces() -> Iterator[bytes]:
        sink = _Pieces()
        with parquet.ParquetWriter(sink, schema) as writer:
            for rows in _groups(parts, ROW_GROUP):
                writer.write_table(pa.Table.from_pylist(rows, schema))
                yield sink.take()
        yield sink.take()

    return pieces()


class _Pieces(io.RawIOBase):
    """A file that is handed on in pieces instead of being kept."""

    def __init__(self) -> None:
        super().__init__()
        self._pieces: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def write(self, piece: Any) -> int:
        data = bytes(piece)
        self._pieces.append(data)
        self._position += len(data)
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _groups(parts: Iterable[Sequence[Row]], size: int) -> Iterator[list[Row]]:
    group: list[Row] = []
    for part in parts:
        group += part
        if len(group) >= size:
            yield group
            group = []
    if group:
        yield group


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
