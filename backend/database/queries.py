"""Read rows of jobs, trials and reports to show them: pages, counts and searches.

Nothing here locks or changes a row. The calls of a run find and change theirs in `store`; the admin page's lists are in
`listing`.
"""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from sqlalchemy import ColumnElement, Connection, Select, case, func, literal, select, tuple_
from sqlalchemy.orm import InstrumentedAttribute, Session

from ..core.savings import SUMMED, Sums, Usage
from ..core.state import TrialStatus, VerdictCode
from .models import AuditEntry, Job, JobDay, Report, Trial
from .store import ENDED, LEFT, LOST, STOPPED

Days = tuple[date | None, date | None]
"""The first and the last day of a range, in UTC. None: there is no limit."""
ALL_TIME: Days = (None, None)


def find_trial(session: Session, job: Job, number: int) -> Trial | None:
    """Return a trial of a job by its number."""
    return session.scalars(select(Trial).where(Trial.job == job.id, Trial.number == number)).one_or_none()


def has_trial(connection: Connection, job: Job, number: int) -> bool:
    """Whether a job has a trial with a number."""
    return connection.execute(select(Trial.id).where(Trial.job == job.id, Trial.number == number)).first() is not None


def last_trial_number(session: Session, job: Job) -> int:
    """Return the number of a job's latest trial; 0: it has none."""
    return session.scalar(select(func.max(Trial.number)).where(Trial.job == job.id)) or 0


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
    return dict(session.execute(last).all())


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


class OverdueRuns(NamedTuple):
    """The running trials of a job without a call for too long."""

    job: int
    job_id: str
    runs: int
    first: int
    """The lowest number of these trials."""


def overdue_runs(session: Session, prefix: str | None, since: datetime) -> list[OverdueRuns]:
    """Find the running trials without a call since a moment, by job."""
    runs = select(Job.id, Job.job_id, func.count(), func.min(Trial.number)).join(Job, Trial.job == Job.id)
    runs = runs.where(
        Trial.status == TrialStatus.DISPATCHED, Trial.last_seen_at < since, *begins_with(Job.job_id, prefix)
    )
    return [OverdueRuns(*row) for row in session.execute(runs.group_by(Job.id, Job.job_id))]


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

    id: int
    """The job's number in the database."""
    job_id: str
    created_at: datetime
    revision: int
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
        select(Job.id, Job.job_id, Job.created_at, Job.revision, failures, last_failure, crashes, last_crash)
        .join(Trial, (Trial.job == Job.id) & (Trial.number > Job.last_success))
        .where(Trial.exploration == Job.exploration)
        .where(Trial.status.not_in([TrialStatus.DISPATCHED, TrialStatus.CALIBRATED]), _FAILED | _CRASHED)
        .where(*begins_with(Job.job_id, prefix), *([] if of_job is None else [Job.id == of_job.id]))
        .group_by(Job.id, Job.job_id, Job.created_at, Job.revision)
        .order_by((failures + crashes).desc(), Job.id)
        .limit(limit)
    )
    return [Row(*row[:4], *map(int, row[4:])) for row in session.execute(query)]


def outcomes(session: Session, trials: Collection[tuple[int, int]]) -> dict[int, str]:
    """Return how some trials have ended, in words, by job. Each comes as its job's number and its own."""
    query = select(Trial.job, Trial.outcome).where(tuple_(Trial.job, Trial.number).in_(trials))
    return {job: outcome or "" for job, outcome in session.execute(query)}


@dataclass(frozen=True, slots=True)
class GroupSums:
    """Sums over the ended runs of some jobs."""

    group: str
    """What the jobs have in common; empty: nothing."""
    first: int
    """The lowest number of these jobs in the database."""
    jobs: int
    """Jobs with such runs."""
    known_jobs: int
    """Those of them with known savings: their default batch size has converged."""
    sums: Sums
    known_energy_j: float
    """Energy that the jobs with known savings have used."""
    saved: Usage
    """Savings of these jobs against the default. Negative: a loss."""

    @property
    def unknown_jobs(self) -> int:
        """Jobs with unknown savings."""
        return self.jobs - self.known_jobs


def group_sums(session: Session, prefix: str | None, days: Days, *, by_team: bool = False) -> list[GroupSums]:
    """Return sums over the runs that ended in a range of days: of all jobs, or by team from the highest savings on."""
    sums = _sums_of_jobs(prefix, days).subquery()
    known = sums.c.saved_energy.is_not(None)
    query = select(
        *(sums.c.team if by_team else literal(""), func.min(sums.c.job), func.count(), func.count(sums.c.saved_energy)),
        func.sum(case((known, sums.c.energy_j), else_=0.0)),
        *(func.sum(sums.c[name]) for name in SUMMED),
        *(func.coalesce(func.sum(sums.c[name]), 0.0) for name in _SAVED),
    ).having(func.count() > 0)
    if by_team:
        saved = func.coalesce(func.sum(sums.c.saved_energy), 0.0)
        query = query.group_by(sums.c.team).order_by(saved.desc(), sums.c.team)
    return [_group_sums(*row) for row in session.execute(query)]


def job_sums(
    session: Session,
    prefix: str | None,
    days: Days,
    *,
    only_known: bool = False,
    least_first: bool = False,
    limit: int | None = None,
) -> list[GroupSums]:
    """Return sums over the runs that ended in a range of days by job, from the highest savings of energy on.

    Args:
        session: the transaction.
        prefix: the start of the jobs' ids.
        days: the range.
        only_known: whether to leave out the jobs with unknown savings.
        least_first: whether to begin with the lowest savings.
        limit: how many jobs to return at most; None: all.
    """
    sums = _sums_of_jobs(prefix, days, only_known=only_known).subquery()
    saved = func.coalesce(sums.c.saved_energy, 0.0)
    known = case((sums.c.saved_energy.is_not(None), 1), else_=0)
    query = select(
        *(sums.c.job_id, sums.c.job, literal(1), known, known * sums.c.energy_j, *(sums.c[name] for name in SUMMED)),
        *(func.coalesce(sums.c[name], 0.0) for name in _SAVED),
    )
    query = query.order_by(saved.asc() if least_first else saved.desc(), sums.c.job_id).limit(limit)
    return [_group_sums(*row) for row in session.execute(query)]


_OF_DEFAULT = (Job.default_energy_j, Job.default_time_s, Job.default_cost_j)
_SAVED = ("saved_energy", "saved_time", "saved_cost")


def _sums_of_jobs(prefix: str | None, days: Days, *, only_known: bool = False) -> Select[*tuple[Any, ...]]:
    """Select the sums of each job's runs that ended in a range of days, and its savings; NULL: they are not known."""
    if days == ALL_TIME:
        query = select(Job.id.label("job")).where(Job.runs > 0)
        ended: Any = Job
    else:
        sums = (func.sum(getattr(JobDay, name)).label(name) for name in SUMMED)
        of_days = select(JobDay.job, *sums).where(*_within(days)).group_by(JobDay.job)
        subquery = of_days.having(func.sum(JobDay.runs) > 0).subquery()
        query = select(Job.id.label("job")).join_from(Job, subquery, subquery.c.job == Job.id)
        ended = subquery.c
    number = func.nullif(Job.default_recurrences, 0)
    pairs = zip(_SAVED, _OF_DEFAULT, ("energy_j", "time_s", "cost_j"), strict=True)
    return query.add_columns(
        *(Job.job_id, Job.team, *(getattr(ended, name) for name in SUMMED)),
        *(
            (ended.recurrences * of_default / number - getattr(ended, spent)).label(name)
            for name, of_default, spent in pairs
        ),
    ).where(*begins_with(Job.job_id, prefix), *([Job.default_recurrences > 0] if only_known else []))


def _group_sums(group: str, first: int, jobs: int, known: int, known_energy_j: float, *sums: Any) -> GroupSums:
    of_runs = Sums(int(sums[0]), int(sums[1]), *sums[2:5])  # databases add up whole numbers as decimals
    return GroupSums(group, first, jobs, known, of_runs, known_energy_j, Usage(*sums[5:]))


def saved_by_day(session: Session, prefix: str | None, days: Days) -> list[tuple[date, Usage]]:
    """Return what all jobs with known savings have saved on each day on which a trial of theirs ended, in order."""
    spent = (JobDay.energy_j, JobDay.time_s, JobDay.cost_j)
    saved = (
        func.sum(JobDay.recurrences * of_default / Job.default_recurrences - of_run)
        for of_default, of_run in zip(_OF_DEFAULT, spent, strict=True)
    )
    query = select(JobDay.day, *saved).join(Job, Job.id == JobDay.job)
    query = query.where(Job.default_recurrences > 0, *_within(days), *begins_with(Job.job_id, prefix))
    return [(day, Usage(*of_day)) for day, *of_day in session.execute(query.group_by(JobDay.day).order_by(JobDay.day))]


def _within(days: Days) -> list[ColumnElement[bool]]:
    first, last = days
    return [*([] if first is None else [JobDay.day >= first]), *([] if last is None else [JobDay.day <= last])]


def never_converged(session: Session, prefix: str | None, limit: int) -> tuple[int, Sequence[Job]]:
    """Count the jobs with ended runs of which none has converged, and return those that have spent most."""
    jobs = select(Job).where(Job.runs > 0, Job.recurrences == 0, *begins_with(Job.job_id, prefix))
    return count_rows(session, jobs), session.scalars(jobs.order_by(Job.cost_j.desc(), Job.id).limit(limit)).all()


def drifted_jobs(session: Session, prefix: str | None, launches: int) -> Sequence[Job]:
    """Return the jobs whose costs have drifted within their last launches."""
    jobs = select(Job).where(Job.drifted_trial > Job.launches - launches, *begins_with(Job.job_id, prefix))
    return session.scalars(jobs.order_by(Job.id)).all()


class IdleJob(NamedTuple):
    """A job that has not run for long."""

    job: int
    job_id: str
    launches: int
    created_at: datetime
    last_launch_at: datetime | None


def idle_jobs(session: Session, prefix: str | None, since: datetime, now: datetime) -> list[IdleJob]:
    """Return the jobs that have become idle since a moment, the latest first."""
    facts = (Job.id, Job.job_id, Job.launches, Job.created_at, Job.last_launch_at)
    jobs = select(*facts).where(Job.idle_from > since, Job.idle_from < now, *begins_with(Job.job_id, prefix))
    return [IdleJob(*row) for row in session.execute(jobs.order_by(Job.idle_from.desc()))]


def latest_launched(session: Session, prefix: str | None, limit: int) -> Sequence[Job]:
    """Return the jobs that have run, the latest launch first."""
    jobs = select(Job).where(Job.launches > 0, *begins_with(Job.job_id, prefix))
    return session.scalars(jobs.order_by(Job.last_launch_at.desc(), Job.id).limit(limit)).all()


def outcome_codes(session: Session, trials: Collection[tuple[int, int]]) -> dict[int, str | None]:
    """Return the outcome codes of some trials, by job. Each comes as its job's number and its own."""
    query = select(Trial.job, Trial.outcome_code).where(tuple_(Trial.job, Trial.number).in_(trials))
    return dict(session.execute(query).all())


def revision_of_all(session: Session, prefix: str | None) -> tuple[int, int]:
    """Return two numbers of which every change of a job raises one, and none falls while the other stays.

    The sum of the jobs' revisions falls when a job is deleted, but that adds an entry to the audit log.
    """
    revisions = session.scalar(select(func.sum(Job.revision)).where(*begins_with(Job.job_id, prefix)))
    return session.scalar(select(func.max(AuditEntry.id))) or 0, int(revisions or 0)


def count_ended(session: Session, prefix: str | None) -> int:
    """Count the trials that have ended."""
    return int(session.scalar(select(func.sum(Job.runs)).where(*begins_with(Job.job_id, prefix))) or 0)


def count_jobs(session: Session, prefix: str | None = None) -> int:
    """Count the jobs."""
    return session.scalar(select(func.count(Job.id)).where(*begins_with(Job.job_id, prefix))) or 0


def count_trials(session: Session) -> dict[str, int]:
    """Count the trials of all jobs by status."""
    rows = session.execute(select(Trial.status, func.count()).group_by(Trial.status))
    counts = dict(rows.all())
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
