"""Files to download: CSV and JSON, streamed in parts."""

import csv
import io
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from flask import Response, stream_with_context

from lightning_bso.wire import TrialRecord


def download(filename: str, content: Iterator[str], mimetype: str = "text/csv") -> Response:
    """Stream a file."""
    headers = {"Content-Disposition": f'attachment; filename="{filename}"'}
    return Response(stream_with_context(content), mimetype=mimetype, headers=headers)


def as_csv(labels: Sequence[str], parts: Iterable[Iterable[Sequence[Any]]]) -> Iterator[str]:
    """Rows as CSV, one piece of text per part."""
    yield _csv([labels])
    for rows in parts:
        yield _csv([cell(value) for value in row] for row in rows)


def trials_as_csv(pages: Iterator[list[TrialRecord]]) -> Iterator[str]:
    """All trials of a job as CSV."""
    names = list(TrialRecord.model_fields)
    records = ([trial.model_dump(mode="json") for trial in trials] for trials in pages)
    return as_csv(names, ([[record[name] for name in names] for record in part] for part in records))


def trials_as_json(spec: str, pages: Iterator[list[TrialRecord]]) -> Iterator[str]:
    """A job's spec and all of its trials as JSON.

    Args:
        spec: the spec, as JSON.
        pages: the trials.
    """
    yield f'{{"job": {spec}, "trials": ['
    comma = ""
    for trials in pages:
        yield comma + ", ".join(trial.model_dump_json() for trial in trials)
        comma = ", "
    yield "]}\n"


def cell(value: Any) -> Any:
    """A value of a CSV. A quote in front keeps a spreadsheet from running text as a formula."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def _csv(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue()
