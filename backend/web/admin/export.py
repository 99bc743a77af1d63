"""Trials as files for other programs."""

import csv
import io
from collections.abc import Iterator
from typing import Any

from lightning_bso.wire import TrialRecord


def as_csv(pages: Iterator[list[TrialRecord]]) -> Iterator[str]:
    """All trials as CSV, a page of them at a time."""
    names = list(TrialRecord.model_fields)
    yield ",".join(names) + "\r\n"
    for trials in pages:
        text = io.StringIO()
        writer = csv.writer(text)
        for trial in trials:
            told = trial.model_dump(mode="json")
            writer.writerow([cell(told[name]) for name in names])
        yield text.getvalue()


def cell(value: Any) -> Any:
    """What a spreadsheet would take for a formula is text to it."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def as_json(spec: str, pages: Iterator[list[TrialRecord]]) -> Iterator[str]:
    """A job's spec, which is JSON, and all trials as JSON, a page of them at a time."""
    yield f'{{"job": {spec}, "trials": ['
    comma = ""
    for trials in pages:
        yield comma + ", ".join(trial.model_dump_json() for trial in trials)
        comma = ", "
    yield "]}\n"
