"""Read rows of jobs, trials and reports to show them: pages, counts and searches.

Nothing here locks or changes a row. The calls of a run find and change theirs in `store`; the admin page's lists are in
`listing`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, Subquery, case, func, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from ..core.state import TrialStatus, TrialType, VerdictCode
from .models import Job, Report, Trial
from .store import ENDED, LEFT, LOST, STOPPED


def find_trial(session: Session, job: Job, number: int) -> Trial | None:
    """Return a trial of a job by its number."""
    return session.scalars(select(Trial).where(Trial.job == job.id, Trial.number == number)).one_or_none()


def page_of_trials(session: Session, job: Job, offset: int, limit: int) -> tuple[int, Sequence[Trial]]:
    """Count the trials of a job, and return a page of them by ascending number."""
    of_job = select(Trial).where(Trial.job == job.id)
    return count_rows(session, of_job), session.scalars(of_job.order_by(Trial.number).offset(offset).limit(limit)).all()


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The jobs to list. A field that is None does not filter."""

    prefix: str | None = None
    """Start of the job's id."""
    contains: str | None = None
    """Text anywhere in the job's id."""
    policy: str | None = None
    gpu_model: str | None = None
    paused: bool | None = None


def page_of_jobs(session: Session, which: JobFilter, offset: int, limit: int) -> tuple[int, Sequence[Job]]:
    """Count the jobs of a filter, and return a page of them, newest first."""
    jobs = _filtered(which)
    page = jobs.order_by(Job.created_at.desc(), Job.id.desc()).offset(offset).limit(limit)
    return count_rows(session, jobs), session.scalars(page).all()


def jobs_numbered(session: Session, ids: Collection[int]) -> Sequence[Job]:
    """Return jobs by their numbers in the database, oldest first."""
    return session.scalars(select(Job).where(Job.id.in_(ids)).order_by(Job.id)).all()


def last_activity(session: Session, jobs: Collection[int]) -> dict[int, datetime]:
    """Return when a run of each of some jobs was last seen. Jobs without a run are left out."""
    last = select(Trial.job, func.max(Trial.last_seen_at)).where(Trial.job.in_(jobs)).group_by(Trial.job)
    return {job: at for job, at in session.execute(last)}  # noqa: C416 - dict() rejects the type of the rows


def page_of_reports(session: Session, trial: Trial, offset: int, limit: int) -> tuple[int, Sequence[Report]]:
    """Count the reports of a trial, and return a page of them in order."""
    of_trial = select(Report).where(Report.trial == trial.id)
    page = of_trial.order_by(Report.number).offset(offset).limit(limit)
    return count_rows(session, of_trial), session.scalars(page).all()


def running_trials(
    session: Session, prefix: str | None, limit: int, *, of_job: Job | None = None
) -> Sequence[tuple[str, Trial]]:
    """Return running trials with their jobs' ids. The trial with the longest time since its last call comes first."""
    runs = (
        select(Job.job_id, Trial)
        .join(Job, Trial.job == Job.id)
        .where(Trial.status == TrialStatus.DISPATCHED, *begins_with(Job.job_id, prefix))
        .order_by(Trial.last_seen_at)
        .limit(limit)
    )
    if of_job is not None:
        runs = runs.where(Trial.job == of_job.id)
    return [(job_id, trial) for job_id, trial in session.execute(runs)]


def count_overdue(session: Session, prefix: str | None, since: datetime) -> int:
    """Count the running trials without a call since a moment."""
    runs = select(Trial.id).join(Job, Trial.job == Job.id)
    return count_rows(
        session,
        runs.where(
            Trial.status == TrialStatus.DISPATCHED, Trial.last_seen_at < since, *begins_with(Job.job_id, prefix)
        ),
    )


def count_active(session: Session, prefix: str | None, since: datetime) -> int:
    """Count the jobs with a call from a run since a moment."""
    active = select(Trial.job).join(Job, Trial.job == Job.id)
    active = active.where(
        Trial.status.in_(list(TrialStatus)), Trial.last_seen_at >= since, *begins_with(Job.job_id, prefix)
    )
    return count_rows(session, active.distinct())


def failing_jobs(session: Session, prefix: str | None, limit: int, of_job: Job | None = None) -> list[tuple[int, int]]:
    """Find the jobs with failed runs since the last run that converged, most failures first.

    Only runs since a job's last reset count. Runs that a user or their caller ended, or that were priced out, do not
    count. A run that converged while the job was paused, or concurrently with an exploring run, does not reset the
    count of failures.

    Returns:
        The jobs' numbers in the database, each with its number of failures.
    """
    succeeded = Trial.converged.is_(True) & Trial.type.in_([TrialType.CALIBRATION, TrialType.PRUNING, TrialType.MAB])
    last = _last_number(succeeded, prefix, of_job)
    failures = func.count()
    rows = session.execute(
        select(Trial.job, failures)
        .join(last, Trial.job == last.c.job)
        .join(Job, _CURRENT)
        .where(
            Trial.number > last.c.number,
            Trial.status.not_in([TrialStatus.DISPATCHED, TrialStatus.CALIBRATED]),
            Trial.outcome_code.not_in([ENDED, LEFT, STOPPED, VerdictCode.PRICED_OUT]),
        )
        .group_by(Trial.job)
        .order_by(failures.desc(), Trial.job)
        .limit(limit)
    )
    return [(job, number) for job, number in rows]


def crashing_jobs(
    session: Session, prefix: str | None, at_least: int, limit: int, of_job: Job | None = None
) -> list[tuple[int, int, str]]:
    """Find the jobs whose last runs all ended without a verdict, most such runs first.

    Only runs since a job's last reset count. Runs that a user ended do not count.

    Returns:
        The jobs' numbers in the database, each with the number of such runs in a row, and how the last of them ended.
    """
    last = _last_number(Trial.status.in_([TrialStatus.SUCCEEDED, TrialStatus.CALIBRATED]), prefix, of_job)
    crashes = func.count()
    found = (
        select(Trial.job, crashes.label("crashes"), func.max(Trial.number).label("latest"))
        .join(last, Trial.job == last.c.job)
        .join(Job, _CURRENT)
        .where(
            Trial.number > last.c.number,
            Trial.status == TrialStatus.FAILED,
            Trial.outcome_code.in_([ENDED, LEFT, LOST]),
        )
        .group_by(Trial.job)
        .having(crashes >= at_least)
        .order_by(crashes.desc(), Trial.job)
        .limit(limit)
        .subquery()
    )
    rows = session.execute(
        select(found.c.job, found.c.crashes, Trial.outcome)
        .join(Trial, (Trial.job == found.c.job) & (Trial.number == found.c.latest))
        .order_by(found.c.crashes.desc(), found.c.job)
    )
    return [(job, number, outcome or "") for job, number, outcome in rows]


_CURRENT = (Trial.job == Job.id) & (Trial.exploration == Job.exploration)


def _last_number(which: ColumnElement[bool], prefix: str | None, of_job: Job | None) -> Subquery:
    """Select the number of each job's last trial of a kind since the last reset; 0: it has none."""
    return (
        select(Trial.job, func.max(case((which, Trial.number), else_=0)).label("number"))
        .join(Job, _CURRENT)
        .where(*begins_with(Job.job_id, prefix), *([] if of_job is None else [Job.id == of_job.id]))
        .group_by(Trial.job)
        .subquery()
    )


def count_jobs(session: Session) -> int:
    """Count all jobs."""
    return count_rows(session, select(Job))


def count_trials(session: Session) -> dict[str, int]:
    """Count the trials of all jobs by status."""
    rows = session.execute(select(Trial.status, func.count()).group_by(Trial.status))
    counts = {status: number for status, number in rows}  # noqa: C416 - dict() rejects the type of the rows
    return {status: counts.get(status, 0) for status in TrialStatus}


def _filtered(which: JobFilter) -> Select[Job]:
    jobs = select(Job).where(*begins_with(Job.job_id, which.prefix))
    if which.contains is not None:
        jobs = jobs.where(Job.job_id.contains(which.contains, autoescape=True))
    for column in (Job.policy, Job.gpu_model, Job.paused):
        value = getattr(which, column.key)
        if value is not None:
            jobs = jobs.where(column == value)
    return jobs


def begins_with(column: InstrumentedAttribute[Any], prefix: str | None) -> list[ColumnElement[bool]]:
    """Return the condition that a column starts with a prefix, if there is one. LIKE ignores case on some databases."""
    return [] if prefix is None else [func.substr(column, 1, len(prefix)) == prefix]


def count_rows(session: Session, rows: Select[Any]) -> int:
    """Count the rows of a query."""
    return session.scalar(select(func.count()).select_from(rows.subquery())) or 0
