"""All trials and all reports of all jobs or of some, as rows of a table for notebooks.

A column's name ends in its unit: `energy_j`, `time_s`. The rows come in parts, and no connection to the database stays
open between two parts. `backend.web.files` writes them as CSV and as Parquet.
"""

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from lightning_bso.wire import RegisteredJobSpec, TrialRecord

from ..core.cost import run_cost
from ..database import exporting, states
from ..database.models import Job
from ..database.transactions import Session, read_only
from .audit import Actor
from .reading import get_job
from .records import trial_record, utc

PART = 1000
"""Rows that are read at a time."""
NAMES = {
    "energy": "energy_j",
    "time": "time_s",
    "cost": "cost_j",
    "energy_after": "energy_after_j",
    "time_after": "time_after_s",
    "current_epoch": "epochs",
    "max_power": "max_power_w",
}
"""Names of columns that differ from those of the API, which have no unit."""
_KINDS = (datetime, float, bool, int)

Row = dict[str, Any]
Key = TypeVar("Key")


@dataclass(frozen=True, slots=True)
class Table:
    """A table that can be exported."""

    columns: Mapping[str, type]
    """Names of the columns, and the type of their values: datetime, float, bool, int or str. Each may be missing."""
    rows: Callable[[Collection[int] | None, Actor], Iterator[Sequence[Row]]]
    """Read the rows of some jobs, or of all, in parts."""


@read_only
def jobs_named(session: Session, job_ids: Sequence[str], by: Actor) -> list[int] | None:
    """Return the numbers of jobs in the database; None, which stands for all jobs, if none is named.

    Raises:
        UnknownJob: there is no such job.
    """
    return [get_job(session, job_id, by).id for job_id in job_ids] or None


def _parts(read: Callable[[Key], tuple[Key, list[Row]]], after: Key) -> Iterator[Sequence[Row]]:
    """Read one part after the other, until one is empty. Each read returns the key of its last row."""
    while True:
        after, rows = read(after)
        if not rows:
            return
        yield rows


@read_only
def _trials_after(session: Session, jobs: Collection[int] | None, after: int, by: Actor) -> tuple[int, list[Row]]:
    found = exporting.trials_after(session, by.job_id_prefix, jobs, after, PART)
    specs: dict[int, Row] = {}
    rows = []
    for job, trial in found:
        if job.id not in specs:
            specs[job.id] = _spec_row(job)
        record = trial_record(states.core_spec(job), trial)
        rows.append({NAMES.get(name, name): value for name, value in record} | specs[job.id])
    return (found[-1][1].id if found else after), rows


@read_only
def _reports_after(
    session: Session, jobs: Collection[int] | None, after: tuple[int, int], by: Actor
) -> tuple[tuple[int, int], list[Row]]:
    found = exporting.reports_after(session, by.job_id_prefix, jobs, after, PART)
    rows: list[Row] = []
    for job, trial, report in found:
        spec = states.core_spec(job)
        rows.append(
            {
                "job_id": job.job_id,
                "trial_number": trial.number,
                "report_number": report.number,
                "batch_size": trial.batch_size,
                "epoch": report.epoch,
                "metric": report.metric,
                "energy_j": report.energy_j,
                "time_s": report.time_s,
                "cost_j": run_cost(spec, report.energy_j, report.time_s),
                "verdict": report.code,
                "verdict_in_words": report.message,
                "received_at": utc(report.received_at),
                "eta_knob": spec.eta_knob,
                "max_power_w": spec.max_power,
            }
        )
    return ((found[-1][2].trial, found[-1][2].number) if found else after), rows


def _spec_row(job: Job) -> Row:
    row = {NAMES.get(name, name): value for name, value in states.spec_of(job)}
    return row | {"batch_sizes": " ".join(map(str, row["batch_sizes"]))}


def _kind(annotation: Any) -> type:
    """The type of a column whose field in the API has an annotation."""
    kinds = _types_in(annotation)
    return next((kind for kind in _KINDS if kind in kinds), str)


def _types_in(annotation: Any) -> set[Any]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _types_in(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return set().union(*map(_types_in, get_args(annotation)))
    return {annotation}


def _columns(*models: Any) -> dict[str, type]:
    fields = {name: field.annotation for model in models for name, field in model.model_fields.items()}
    return {NAMES.get(name, name): _kind(annotation) for name, annotation in fields.items()}


TABLES = {
    "trials": Table(
        {"job_id": str} | _columns(TrialRecord, RegisteredJobSpec),
        lambda jobs, by: _parts(lambda after: _trials_after(jobs, after, by), 0),
    ),
    "reports": Table(
        {
            "job_id": str,
            "trial_number": int,
            "report_number": int,
            "batch_size": int,
            "epoch": int,
            "metric": float,
            "energy_j": float,
            "time_s": float,
            "cost_j": float,
            "verdict": str,
            "verdict_in_words": str,
            "received_at": datetime,
            "eta_knob": float,
            "max_power_w": float,
        },
        lambda jobs, by: _parts(lambda after: _reports_after(jobs, after, by), (0, 0)),
    ),
}
"""The tables by the names of their files."""
