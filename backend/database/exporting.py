"""Read all trials and all reports in parts, each part by the key that follows the last one.

So an export reads any number of rows, and each query takes only as long as its part. `backend.usecases.exports` says
what a file has of a row.
"""

from collections.abc import Collection, Sequence
from typing import Any

from sqlalchemy import ColumnElement, or_, select
from sqlalchemy.orm import Session

from .models import Job, Report, Trial
from .queries import begins_with


def trials_after(
    session: Session, prefix: str | None, jobs: Collection[int] | None, after: int, limit: int
) -> Sequence[tuple[Job, Trial]]:
    """Return the next trials in the order of their numbers in the database, each with its job.

    Args:
        session: the transaction.
        prefix: only jobs whose ids start with it; None: all jobs.
        jobs: only these jobs, by their numbers in the database; None: all jobs.
        after: the trial's number in the database that the part follows; 0: the first part.
        limit: maximum number of trials to return.
    """
    rows = select(Job, Trial).join(Job, Trial.job == Job.id).where(Trial.id > after, *_of(prefix, jobs))
    return [(job, trial) for job, trial in session.execute(rows.order_by(Trial.id).limit(limit))]


def reports_after(
    session: Session, prefix: str | None, jobs: Collection[int] | None, after: tuple[int, int], limit: int
) -> Sequence[tuple[Job, Trial, Report]]:
    """Return the next reports, by trial and number, each with its job and its trial. The arguments are those above."""
    trial, number = after
    follows = (Report.trial >= trial, or_(Report.trial > trial, Report.number > number))
    rows = select(Job, Trial, Report).join(Trial, Report.trial == Trial.id).join(Job, Trial.job == Job.id)
    rows = rows.where(*follows, *_of(prefix, jobs)).order_by(Report.trial, Report.number).limit(limit)
    return [(job, found, report) for job, found, report in session.execute(rows)]


def _of(prefix: str | None, jobs: Collection[int] | None) -> list[ColumnElement[bool]]:
    of_jobs: list[Any] = [] if jobs is None else [Trial.job.in_(jobs)]
    return [*begins_with(Job.job_id, prefix), *of_jobs]
