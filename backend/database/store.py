"""Find, add and change rows of jobs, trials and reports.

No decision is made here: rules live in `backend.core`. `states` loads the data for decisions, and `backend.usecases`
combines these functions into transactions.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import (
    Boolean,
    ColumnElement,
    CursorResult,
    Select,
    Table,
    bindparam,
    case,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from backend.core.gp_ucb.belief import WarmStart
from backend.core.rng import position_of, seeded
from backend.core.state import Choice, TrialStatus, TrialType, Verdict
from backend.core.state import Report as CoreReport
from backend.database.models import Job, Report, StoredBelief, Trial, utc_now
from backend.errors import UnknownJob
from lightning_bso.wire import RegisteredJobSpec

LOST = "lost"
"""Outcome code of a trial whose lease expired."""
ENDED = "ended"
"""Outcome code of a trial that its caller ended without a verdict."""
LEFT = "left"
"""Outcome code of a trial whose training ended without a verdict."""
STOPPED = "stopped"
"""Outcome code of a trial that a user ended."""

# The statements of every call are built once, because building one takes longer than SQLite takes to run it. UPDATEs
# address the tables, because their rows are not loaded as objects.
_JOBS, _TRIALS = cast(Table, Job.__table__), cast(Table, Trial.__table__)
_RAISE_REVISION = update(_JOBS).where(_JOBS.c.job_id == bindparam("wanted_id")).values(revision=_JOBS.c.revision + 1)
_JOB_AND_TIME = select(Job, utc_now()).where(Job.job_id == bindparam("wanted_id"))
_LAST_NUMBER = select(func.max(Report.number)).where(Report.trial == Trial.id).correlate(Trial).scalar_subquery()
_LAST_REPORT = (Report.trial == Trial.id) & (Report.number == _LAST_NUMBER)
_OTHER = aliased(Trial)
# Read for the first report of a run that names its source. All sources of an exploration are the same.
_ENERGY_SOURCE = case(
    (
        bindparam("names_source", type_=Boolean) & Trial.energy_source.is_(None),
        select(_OTHER.energy_source)
        .where(_OTHER.job == Job.id, _OTHER.exploration == Trial.exploration, _OTHER.energy_source.is_not(None))
        .order_by(_OTHER.number.desc())
        .limit(1)
        .correlate(Job, Trial)
        .scalar_subquery(),
    ),
    else_=Trial.energy_source,
)
_LAST_TRIAL = (
    select(func.coalesce(func.max(_OTHER.number), 0)).where(_OTHER.job == Job.id).correlate(Job).scalar_subquery()
)


def _select_run(which: ColumnElement[bool], exploration: InstrumentedAttribute[int]) -> Select[*tuple[Any, ...]]:
    """Build the statement that reads a job, one of its trials, that trial's last report, and a stored summary."""
    return (
        select(Job, utc_now(), Trial, Report, StoredBelief)
        .select_from(Job)
        .outerjoin(Trial, (Trial.job == Job.id) & which)
        .outerjoin(Report, _LAST_REPORT)
        .outerjoin(StoredBelief, (StoredBelief.job == Job.id) & (StoredBelief.exploration == exploration))
        .where(Job.job_id == bindparam("wanted_id"))
    )


_RUN = _select_run(Trial.number == bindparam("number"), Trial.exploration).add_columns(_ENERGY_SOURCE)
_RUN_THAT_ASKS = _select_run(Trial.run_id == bindparam("run_id"), Job.exploration).add_columns(_LAST_TRIAL)
_OLDEST_SEEN = select(func.min(Trial.last_seen_at)).where(
    Trial.job == bindparam("of_job"), Trial.status == TrialStatus.DISPATCHED, Trial.id != bindparam("except_for")
)
_EXPIRE = (
    update(_TRIALS)
    .where(
        _TRIALS.c.job == bindparam("of_job"),
        _TRIALS.c.id != bindparam("except_for"),
        _TRIALS.c.status == TrialStatus.DISPATCHED,
        _TRIALS.c.last_seen_at < bindparam("since"),
    )
    .values(
        status=TrialStatus.FAILED,
        outcome_code=LOST,
        outcome=bindparam("reason_of_end"),
        ended_revision=bindparam("revision_now"),
        ended_at=bindparam("now"),
    )
)


def now(session: Session) -> datetime:
    """Return the database's time, in UTC."""
    return session.scalars(select(utc_now())).one()


def lock_job(session: Session, job_id: str) -> tuple[Job, datetime]:
    """Lock a job until the transaction ends, by raising its revision. Call this before any read.

    An UPDATE locks the row on every database, also on a cluster that writes on several nodes. There, SELECT … FOR
    UPDATE does not lock a row that the transaction does not write.

    Returns:
        The job, and the database's time.

    Raises:
        UnknownJob: there is no such job.
    """
    _lock(session, job_id)
    job, at = session.execute(_JOB_AND_TIME, {"wanted_id": job_id}).one()
    return job, at


@dataclass(frozen=True, slots=True)
class LockedRun:
    """A locked job with what most calls of a run read, in one statement."""

    job: Job
    at: datetime
    """The database's time."""
    trial: Trial | None
    """The run's trial; None: there is no such trial."""
    last_report: Report | None
    """The trial's last report; None before the first."""
    belief: StoredBelief | None
    """The stored summary of the trial's exploration, or of the job's current one for a run that asks."""
    energy_source: str | None = None
    """The energy source of the trial, else that of the other runs of its exploration, if the call needs it."""


def lock_run(session: Session, job_id: str, number: int, *, names_source: bool) -> LockedRun:
    """Lock a job as `lock_job` does, and return it with one of its trials.

    Args:
        session: the transaction.
        job_id: the job.
        number: the trial's number.
        names_source: whether the call names an energy source, and so needs that of the other runs.

    Raises:
        UnknownJob: there is no such job.
    """
    _lock(session, job_id)
    values = {"wanted_id": job_id, "number": number, "names_source": names_source}
    return LockedRun(*session.execute(_RUN, values).one())


def lock_to_ask(session: Session, job_id: str, run_id: str | None) -> tuple[LockedRun, int]:
    """Lock a job as `lock_job` does, and return it with the trial that a run has from an earlier ask.

    Returns:
        The job, and the number of its last trial; 0 before the first.

    Raises:
        UnknownJob: there is no such job.
    """
    _lock(session, job_id)
    *run, last_number = session.execute(_RUN_THAT_ASKS, {"wanted_id": job_id, "run_id": run_id}).one()
    return LockedRun(*run), last_number


def _lock(session: Session, job_id: str) -> None:
    locked = session.execute(_RAISE_REVISION, {"wanted_id": job_id})
    if cast(CursorResult[Any], locked).rowcount == 0:
        raise UnknownJob(job_id)


def find_job(session: Session, job_id: str) -> Job | None:
    """Return a job without locking it."""
    return session.scalars(select(Job).where(Job.job_id == job_id)).one_or_none()


def add_job(session: Session, spec: RegisteredJobSpec, seed: int, warm_start: WarmStart | None) -> Job:
    """Store a new job. An IntegrityError means that another call registered the id first."""
    at = now(session)
    job = Job(
        job_id=spec.job_id,
        spec=spec.model_dump_json(),
        policy=spec.policy,
        gpu_model=spec.gpu_model,
        seed=seed,
        rng_position=position_of(seeded(seed)),
        warm_start=None if warm_start is None else json.dumps(asdict(warm_start)),
        created_at=at,
        oldest_seen_at=at,
    )
    session.add(job)
    session.flush()
    return job


def delete_job(session: Session, job: Job) -> None:
    """Delete a job with its trials and reports."""
    session.execute(delete(Job).where(Job.id == job.id))


def find_trial(session: Session, job: Job, number: int) -> Trial | None:
    """Return a trial of a job by its number."""
    return session.scalars(select(Trial).where(Trial.job == job.id, Trial.number == number)).one_or_none()


def add_trial(
    session: Session,
    job: Job,
    at: datetime,
    number: int,
    run_id: str | None,
    choice: Choice,
    host: str | None,
    process: str | None,
) -> Trial:
    """Store a new trial."""
    trial = Trial(
        job=job.id,
        number=number,
        run_id=run_id,
        host=host,
        process=process,
        exploration=job.exploration,
        batch_size=choice.batch_size,
        type=choice.type,
        reason=choice.reason,
        bound_factor=choice.bound_factor,
        status=TrialStatus.DISPATCHED,
        energy_j=0.0,
        time_s=0.0,
        epochs=0,
        started_revision=job.revision,
        started_at=at,
        last_seen_at=at,
    )
    session.add(trial)
    session.flush()
    return trial


def end_trial(trial: Trial, job: Job, at: datetime, status: TrialStatus, code: str, outcome: str) -> None:
    """Record that a trial has ended, and why. A lost trial keeps the time of its loss as its end."""
    if trial.status == TrialStatus.DISPATCHED:
        trial.ended_revision = job.revision
        trial.ended_at = at
    trial.status = status
    trial.outcome_code = code
    trial.outcome = outcome


def end_at_report(trial: Trial, job: Job, at: datetime, report: CoreReport, verdict: Verdict) -> None:
    """Give a trial its verdict as of an earlier report. What it has used since then is kept apart."""
    trial.energy_after_j += trial.energy_j - report.energy_j
    trial.time_after_s += trial.time_s - report.time_s
    trial.energy_j, trial.time_s, trial.epochs = report.energy_j, report.time_s, report.epoch
    trial.status, trial.outcome_code, trial.outcome = TrialStatus.SUCCEEDED, verdict.code, verdict.reason
    trial.converged = verdict.converged
    trial.ended_revision, trial.ended_at = job.revision, trial.ended_at or at


def revive_trial(trial: Trial) -> None:
    """Set a lost trial to running again."""
    trial.status = TrialStatus.DISPATCHED
    trial.outcome_code = trial.outcome = trial.ended_revision = trial.ended_at = None


def expire_trials(session: Session, job: Job, at: datetime, lease_s: float, *, except_for: Trial | None) -> bool:
    """End the job's running trials whose lease has expired, except one. Returns whether a lease can have expired."""
    if job.oldest_seen_at is not None and job.oldest_seen_at >= at - timedelta(seconds=lease_s):
        if at < job.oldest_seen_at:  # the database's clock has been set back
            job.oldest_seen_at = at
        return False
    values = {
        "of_job": job.id,
        "except_for": except_for.id if except_for else 0,
        "since": at - timedelta(seconds=lease_s),
        "reason_of_end": f"the lease expired: no call for {lease_s:g} s, so the run counts as lost",
        "revision_now": job.revision,
        "now": at,
    }
    session.execute(_EXPIRE, values)
    oldest = session.scalar(_OLDEST_SEEN, {"of_job": values["of_job"], "except_for": values["except_for"]})
    job.oldest_seen_at = at if oldest is None else min(oldest, at)
    return True


def calibrated_trials(session: Session, job: Job, exploration: int) -> Sequence[Trial]:
    """Return an exploration's calibration runs that have ended and wait for the target, by rising number."""
    ended = Trial.status == TrialStatus.CALIBRATED
    return _trials_of(session, job, exploration, ended)


def open_calibration(session: Session, job: Job, exploration: int) -> Sequence[Trial]:
    """Return an exploration's calibration runs that still run or are lost, by rising number."""
    is_open = (Trial.status == TrialStatus.DISPATCHED) | (Trial.outcome_code == LOST)
    return _trials_of(session, job, exploration, is_open & (Trial.type == TrialType.CALIBRATION))


def _trials_of(session: Session, job: Job, exploration: int, which: ColumnElement[bool]) -> Sequence[Trial]:
    of_exploration = select(Trial).where(Trial.job == job.id, Trial.exploration == exploration, which)
    return session.scalars(of_exploration.order_by(Trial.number)).all()


def find_report(session: Session, trial: Trial, number: int) -> Report | None:
    """Return a report of a trial by its number."""
    return session.get(Report, (trial.id, number))


def add_report(
    session: Session, trial: Trial, job: Job, at: datetime, number: int, report: CoreReport, verdict: Verdict
) -> None:
    """Store a report with its verdict, and copy its totals to the trial."""
    session.add(
        Report(
            trial=trial.id,
            number=number,
            epoch=report.epoch,
            metric=report.metric,
            energy_j=report.energy_j,
            time_s=report.time_s,
            code=verdict.code,
            message=verdict.reason,
            revision=job.revision,
            expired_revision=trial.ended_revision,
            received_at=at,
        )
    )
    trial.energy_j, trial.time_s, trial.epochs = report.energy_j, report.time_s, report.epoch


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
    """Return jobs by their numbers in the database."""
    return session.scalars(select(Job).where(Job.id.in_(ids))).all()


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


def failing_jobs(session: Session, prefix: str | None, limit: int) -> list[tuple[int, int]]:
    """Find the jobs with failed runs since the last run that converged, most failures first.

    Only runs since a job's last reset count. Runs that a user or their caller ended do not count. A run that converged
    while the job was paused, or concurrently with an exploring run, does not reset the count of failures.

    Returns:
        The jobs' numbers in the database, each with its number of failures.
    """
    current = (Trial.job == Job.id) & (Trial.exploration == Job.exploration)
    succeeded = Trial.converged.is_(True) & Trial.type.in_([TrialType.CALIBRATION, TrialType.PRUNING, TrialType.MAB])
    last = (
        select(Trial.job, func.max(case((succeeded, Trial.number), else_=0)).label("number"))
        .join(Job, current)
        .where(*begins_with(Job.job_id, prefix))
        .group_by(Trial.job)
        .subquery()
    )
    failures = func.count()
    rows = session.execute(
        select(Trial.job, failures)
        .join(last, Trial.job == last.c.job)
        .join(Job, current)
        .where(
            Trial.number > last.c.number,
            Trial.status.not_in([TrialStatus.DISPATCHED, TrialStatus.CALIBRATED]),
            Trial.outcome_code.not_in([ENDED, LEFT, STOPPED]),
        )
        .group_by(Trial.job)
        .order_by(failures.desc())
        .limit(limit)
    )
    return [(job, number) for job, number in rows]


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
