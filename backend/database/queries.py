"""Read rows of jobs, trials and reports to show them: pages, counts and searches.

Nothing here locks or changes a row. The calls of a run find and change theirs in `store`; the admin page's lists are in
`listing`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Select, case, func, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from ..core.savings import SUMMED, Sums, Usage, against_default
from ..core.state import TrialStatus, VerdictCode
from .models import Job, JobDay, Report, Trial
from .store import ENDED, LEFT, LOST, STOPPED

Days = tuple[date | None, date | None]
"""The first and the last day of a range, in UTC. None: there is no limit."""


def find_trial(session: Session, job: Job, number: int) -> Trial | None:
    """Return a trial of a job by its number."""
    return session.scalars(select(Trial).where(Trial.job == job.id, Trial.number == number)).one_or_none()


def page_of_trials(session: Session, job: Job, offset: int, limit: int) -> tuple[int, Sequence[Trial]]:
    """Count the trials of a job, and return a page of them by ascending number."""
    of_job = select(Trial).where(Trial.job == job.id)
    return count_rows(session, of_job), session.scalars(of_job.order_by(Trial.number).offset(offset).limit(limit)).all()


def trials_with_numbers(session: Session, job: Job, numbers: Sequence[int], latest: int) -> Sequence[Trial]:
    """Return the trials of a job with these numbers, ascending; without numbers, the latest `latest`."""
    of_job = select(Trial).where(Trial.job == job.id)
    if numbers:
        return session.scalars(of_job.where(Trial.number.in_(numbers)).order_by(Trial.number)).all()
    return session.scalars(of_job.order_by(Trial.number.desc()).limit(latest)).all()[::-1]


@dataclass(frozen=True, slots=True)
class JobFilter:
    """The jobs to list. A field that is None does not filter."""

    prefix: str | None = None
    """Start of the job's id."""
    contains: str | None = None
    """Text anywhere in the job's id, in any case."""
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


def overdue_runs(session: Session, prefix: str | None, since: datetime) -> dict[int, tuple[int, int]]:
    """Find the running trials without a call since a moment. Returns their number and the first of them, by job."""
    runs = select(Trial.job, func.count(), func.min(Trial.number)).join(Job, Trial.job == Job.id)
    runs = runs.where(
        Trial.status == TrialStatus.DISPATCHED, Trial.last_seen_at < since, *begins_with(Job.job_id, prefix)
    )
    return {job: (number, first) for job, number, first in session.execute(runs.group_by(Trial.job))}


def count_running(session: Session, prefix: str | None) -> int:
    """Count the running trials."""
    runs = select(func.count()).select_from(Trial).where(Trial.status == TrialStatus.DISPATCHED)
    if prefix is not None:
        runs = runs.join(Job, Trial.job == Job.id).where(*begins_with(Job.job_id, prefix))
    return session.scalar(runs) or 0


def count_active(session: Session, prefix: str | None, since: datetime) -> int:
    """Count the jobs with a call from a run since a moment."""
    active = select(Trial.job).join(Job, Trial.job == Job.id)
    active = active.where(
        Trial.status.in_(list(TrialStatus)), Trial.last_seen_at >= since, *begins_with(Job.job_id, prefix)
    )
    return count_rows(session, active.distinct())


class Row(NamedTuple):
    """The runs of a job since its last success, or since its last verdict, if there are such runs."""

    job: int
    """The job's number in the database."""
    failures: int
    """Failed runs since the last run that converged."""
    last_failure: int
    """Number of the last of these trials; 0: there is none."""
    crashes: int
    """Runs that ended without a verdict since the last run with one."""
    last_crash: int


_FAILED = Trial.outcome_code.not_in([ENDED, LEFT, STOPPED, VerdictCode.PRICED_OUT])
_CRASHED = (
    (Trial.number > Job.last_verdict)
    & (Trial.status == TrialStatus.FAILED)
    & Trial.outcome_code.in_([ENDED, LEFT, LOST])
)


def without_success(session: Session, prefix: str | None, limit: int, of_job: Job | None = None) -> list[Row]:
    """Find the jobs whose last runs have failed or ended without a verdict, most of them first.

    Only runs since a job's last reset count. Runs that a user or their caller ended, or that were priced out, are no
    failures. A run that converged while the job was paused, or concurrently with an exploring run, ends no row of
    failures. Runs that a user ended do not count at all.
    """
    failures, crashes = (func.sum(case((which, 1), else_=0)) for which in (_FAILED, _CRASHED))
    last_failure, last_crash = (func.max(case((which, Trial.number), else_=0)) for which in (_FAILED, _CRASHED))
    query = (
        select(Job.id, failures, last_failure, crashes, last_crash)
        .join(Trial, (Trial.job == Job.id) & (Trial.number > Job.last_success))
        .where(Trial.exploration == Job.exploration)
        .where(Trial.status.not_in([TrialStatus.DISPATCHED, TrialStatus.CALIBRATED]), _FAILED | _CRASHED)
        .where(*begins_with(Job.job_id, prefix), *([] if of_job is None else [Job.id == of_job.id]))
        .group_by(Job.id)
        .order_by((failures + crashes).desc(), Job.id)
        .limit(limit)
    )
    return [Row(*map(int, row)) for row in session.execute(query)]


def outcomes(session: Session, trials: Collection[tuple[int, int]]) -> dict[int, str]:
    """Return how some trials have ended, in words, by job. Each comes as its job's number and its own."""
    query = select(Trial.job, Trial.outcome).where(tuple_(Trial.job, Trial.number).in_(trials))
    return {job: outcome or "" for job, outcome in session.execute(query)}


@dataclass(frozen=True, slots=True)
class KeptSums:
    """What is kept of a job's trials."""

    number: int
    """The job's number in the database."""
    job_id: str
    revision: int
    created_at: datetime
    launches: int
    last_launch_at: datetime | None
    drifted_trial: int | None
    sums: Sums
    """Over all trials that have ended, or those that ended in a range of days."""
    default: Sums
    """Over the trials that converged with the default batch size, at any time."""

    @property
    def saved(self) -> Usage | None:
        """The savings against the default; None: they are not known."""
        return against_default(self.sums.recurrences, self.sums.usage, self.default)


def kept_sums(session: Session, prefix: str | None, days: Days | None = None) -> list[KeptSums]:
    """Return the kept sums of all jobs; of a range of days, those of the jobs of which a trial ended in it."""
    facts = (Job.id, Job.job_id, Job.revision, Job.created_at, Job.launches, Job.last_launch_at, Job.drifted_trial)
    default = (Job.default_recurrences, Job.default_energy_j, Job.default_time_s, Job.default_cost_j)
    if days is None:
        query = select(*facts, *default, *(getattr(Job, name) for name in SUMMED))
    else:
        in_range = (
            select(JobDay.job, *(func.sum(getattr(JobDay, name)).label(name) for name in SUMMED))
            .where(*_within(days))
            .group_by(JobDay.job)
            .having(func.sum(JobDay.runs) > 0)
            .subquery()
        )
        query = select(*facts, *default, *(in_range.c[name] for name in SUMMED)).join(
            in_range, in_range.c.job == Job.id
        )
    found = session.execute(query.where(*begins_with(Job.job_id, prefix)))
    return [_kept_sums(*row) for row in found]


def _kept_sums(*values: Any) -> KeptSums:
    *facts, of_default, default_j, default_s, default_cost_j, runs, recurrences, energy_j, time_s, cost_j = values
    sums = Sums(int(runs), int(recurrences), energy_j, time_s, cost_j)  # databases add up whole numbers as decimals
    default = Sums(of_default, of_default, default_j, default_s, default_cost_j)
    return KeptSums(*[*facts, sums, default])


def saved_by_day(session: Session, prefix: str | None, days: Days) -> list[tuple[date, Usage]]:
    """Return what all jobs with known savings have saved on each day on which a trial of theirs ended, in order."""
    saved = (
        func.sum(JobDay.recurrences * default / Job.default_recurrences - spent)
        for default, spent in (
            (Job.default_energy_j, JobDay.energy_j),
            (Job.default_time_s, JobDay.time_s),
            (Job.default_cost_j, JobDay.cost_j),
        )
    )
    query = select(JobDay.day, *saved).join(Job, Job.id == JobDay.job)
    query = query.where(Job.default_recurrences > 0, *_within(days), *begins_with(Job.job_id, prefix))
    return [(day, Usage(*of_day)) for day, *of_day in session.execute(query.group_by(JobDay.day).order_by(JobDay.day))]


def _within(days: Days) -> list[ColumnElement[bool]]:
    first, last = days
    return [*([] if first is None else [JobDay.day >= first]), *([] if last is None else [JobDay.day <= last])]


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
        jobs = jobs.where(Job.job_id.icontains(which.contains, autoescape=True))
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
