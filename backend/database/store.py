"""Find, add and change rows.

Nothing here decides anything: rules live in `backend.core`, what they look at is loaded by `backend.states`, and
what belongs together in one transaction is said in `backend.service`.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from typing import Any, cast

from sqlalchemy import ColumnElement, CursorResult, Select, Table, bindparam, case, delete, func, select, update
from sqlalchemy.orm import InstrumentedAttribute, Session

from backend.core.gp_ucb.belief import WarmStart
from backend.core.rng import position_of, seeded
from backend.core.state import Choice, TrialStatus, TrialType, Verdict
from backend.core.state import Report as CoreReport
from backend.database.models import Job, Report, Trial, utc_now
from backend.errors import UnknownJob
from lightning_bso.wire import RegisteredJobSpec

LOST = "lost"
"""Outcome code of a trial that was not heard of for its lease."""
ENDED = "ended"
"""Outcome code of a trial that its caller ended without a verdict."""
LEFT = "left"
"""Outcome code of a trial whose run came to its end without a verdict."""
STOPPED = "stopped"
"""Outcome code of a trial that a person ended."""

# What every call asks for is put into words once: that takes longer than SQLite takes to answer. UPDATEs go to the
# tables, as none of their rows is at hand as an object.
_JOBS, _TRIALS = cast(Table, Job.__table__), cast(Table, Trial.__table__)
_RAISE_REVISION = update(_JOBS).where(_JOBS.c.job_id == bindparam("of")).values(revision=_JOBS.c.revision + 1)
_JOB_NOW = select(Job, utc_now()).where(Job.job_id == bindparam("of"))
_TRIAL_NUMBERED = select(Trial).where(Trial.job == bindparam("of"), Trial.number == bindparam("number"))
_LAST_REPORT = select(Report).where(Report.trial == bindparam("of")).order_by(Report.number.desc()).limit(1)
_EXPIRE = (
    update(_TRIALS)
    .where(
        _TRIALS.c.job == bindparam("of"),
        _TRIALS.c.id != bindparam("but"),
        _TRIALS.c.status == TrialStatus.DISPATCHED,
        _TRIALS.c.last_seen_at < bindparam("since"),
    )
    .values(
        status=TrialStatus.FAILED,
        outcome_code=LOST,
        outcome=bindparam("said"),
        ended_revision=bindparam("revision_now"),
        ended_at=bindparam("now"),
    )
)


def now(session: Session) -> datetime:
    """The database's clock, UTC."""
    return session.scalars(select(utc_now())).one()


def lock_job(session: Session, job_id: str) -> tuple[Job, datetime]:
    """Lock a job to the end of the transaction by raising its revision. Must come before any read.

    An UPDATE locks alike on every database, several writing nodes included, where SELECT … FOR UPDATE of a
    row that is then not written does not.

    Raises:
        UnknownJob: there is no such job.
    """
    locked = session.execute(_RAISE_REVISION, {"of": job_id})
    if cast(CursorResult[Any], locked).rowcount == 0:
        raise UnknownJob(job_id)
    job, at = session.execute(_JOB_NOW, {"of": job_id}).one()
    return job, at


def find_job(session: Session, job_id: str) -> Job | None:
    """A job, without locking it."""
    return session.scalars(select(Job).where(Job.job_id == job_id)).one_or_none()


def add_job(session: Session, spec: RegisteredJobSpec, seed: int, warm_start: WarmStart | None) -> None:
    """Store a new job. An IntegrityError says that its id was taken in the meantime."""
    session.add(
        Job(
            job_id=spec.job_id,
            spec=spec.model_dump_json(),
            policy=spec.policy,
            gpu_model=spec.gpu_model,
            seed=seed,
            rng_position=position_of(seeded(seed)),
            warm_start=None if warm_start is None else json.dumps(asdict(warm_start)),
            created_at=now(session),
        )
    )
    session.flush()


def delete_job(session: Session, job: Job) -> None:
    """Delete a job with its trials and reports."""
    session.execute(delete(Job).where(Job.id == job.id))


def trial_of_run(session: Session, job: Job, run_id: str) -> Trial | None:
    """The trial that a caller's run was given, if it has asked before."""
    return session.scalars(select(Trial).where(Trial.job == job.id, Trial.run_id == run_id)).one_or_none()


def trial_numbered(session: Session, job: Job, number: int) -> Trial | None:
    """A trial of a job by its number."""
    return session.scalars(_TRIAL_NUMBERED, {"of": job.id, "number": number}).one_or_none()


def add_trial(session: Session, job: Job, at: datetime, run_id: str | None, choice: Choice, host: str | None) -> Trial:
    """Store a new trial under the job's next number."""
    last = session.scalar(select(func.max(Trial.number)).where(Trial.job == job.id)) or 0
    trial = Trial(
        job=job.id,
        number=last + 1,
        run_id=run_id,
        host=host,
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
    """Write down that a trial has ended, and why; one taken for lost ended when it was."""
    if trial.status == TrialStatus.DISPATCHED:
        trial.ended_revision = job.revision
        trial.ended_at = at
    trial.status = status
    trial.outcome_code = code
    trial.outcome = outcome


def revive_trial(trial: Trial) -> None:
    """Take back that a trial was lost."""
    trial.status = TrialStatus.DISPATCHED
    trial.outcome_code = trial.outcome = trial.ended_revision = trial.ended_at = None


def expire_trials(session: Session, job: Job, at: datetime, lease_s: float, *, but: Trial | None) -> None:
    """End every trial of a job, but one, that has not been heard of for its lease."""
    values = {
        "of": job.id,
        "but": but.id if but else 0,
        "since": at - timedelta(seconds=lease_s),
        "said": f"not heard of for {lease_s:g} s, so taken for lost",
        "revision_now": job.revision,
        "now": at,
    }
    session.execute(_EXPIRE, values)


def energy_sources(session: Session, job: Job, exploration: int) -> set[str]:
    """Where the energies of an exploration's trials come from, as far as they say."""
    said = select(Trial.energy_source).distinct()
    where = (Trial.job == job.id, Trial.exploration == exploration, Trial.energy_source.is_not(None))
    return {source for source in session.scalars(said.where(*where)) if source is not None}


def report_numbered(session: Session, trial: Trial, number: int) -> Report | None:
    """A report of a trial by its number."""
    return session.get(Report, (trial.id, number))


def last_report(session: Session, trial: Trial) -> Report | None:
    """A trial's last report, None before the first."""
    return session.scalars(_LAST_REPORT, {"of": trial.id}).one_or_none()


def add_report(
    session: Session, trial: Trial, job: Job, at: datetime, number: int, report: CoreReport, verdict: Verdict
) -> None:
    """Store a report with the verdict on it, and its totals as the trial's."""
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
    """How many trials a job has, and a part of them by rising number."""
    of_job = select(Trial).where(Trial.job == job.id)
    return count_rows(session, of_job), session.scalars(of_job.order_by(Trial.number).offset(offset).limit(limit)).all()


@dataclass(frozen=True, slots=True)
class JobFilter:
    """Which jobs are meant; what is None does not matter."""

    prefix: str | None = None
    """What the ids begin with."""
    contains: str | None = None
    """What the ids hold anywhere."""
    policy: str | None = None
    gpu_model: str | None = None
    paused: bool | None = None


def page_of_jobs(session: Session, which: JobFilter, offset: int, limit: int) -> tuple[int, Sequence[Job]]:
    """How many such jobs there are, and a part of them, newest first."""
    jobs = _filtered(which)
    page = jobs.order_by(Job.created_at.desc(), Job.id.desc()).offset(offset).limit(limit)
    return count_rows(session, jobs), session.scalars(page).all()


def jobs_numbered(session: Session, ids: Collection[int]) -> Sequence[Job]:
    """Jobs by their numbers in the database."""
    return session.scalars(select(Job).where(Job.id.in_(ids))).all()


def last_activity(session: Session, jobs: Collection[int]) -> dict[int, datetime]:
    """When each of some jobs was last heard of, if it ever was."""
    last = select(Trial.job, func.max(Trial.last_seen_at)).where(Trial.job.in_(jobs)).group_by(Trial.job)
    return {job: at for job, at in session.execute(last)}  # noqa: C416 - rows are no plain tuples


def reports_of(session: Session, trial: Trial, offset: int, limit: int) -> tuple[int, Sequence[Report]]:
    """How many reports a trial has, and a part of them in their order."""
    of_trial = select(Report).where(Report.trial == trial.id)
    page = of_trial.order_by(Report.number).offset(offset).limit(limit)
    return count_rows(session, of_trial), session.scalars(page).all()


def running_trials(
    session: Session, prefix: str | None, limit: int, *, of_job: Job | None = None
) -> Sequence[tuple[str, Trial]]:
    """Runs that have not ended, with their jobs' ids, those unheard of for longest first."""
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


def count_silent(session: Session, prefix: str | None, since: datetime) -> int:
    """How many runs that have not ended were not heard of since a moment."""
    runs = select(Trial.id).join(Job, Trial.job == Job.id)
    return count_rows(
        session,
        runs.where(
            Trial.status == TrialStatus.DISPATCHED, Trial.last_seen_at < since, *begins_with(Job.job_id, prefix)
        ),
    )


def count_active(session: Session, prefix: str | None, since: datetime) -> int:
    """How many jobs were heard of since a moment."""
    heard = select(Trial.job).join(Job, Trial.job == Job.id)
    heard = heard.where(
        Trial.status.in_(list(TrialStatus)), Trial.last_seen_at >= since, *begins_with(Job.job_id, prefix)
    )
    return count_rows(session, heard.distinct())


def failing_jobs(session: Session, prefix: str | None, limit: int) -> list[tuple[int, int]]:
    """Jobs whose last run has failed, by their numbers, with how many have since one converged; the worst first.

    Only runs since a job's last reset count, and none that a person or its caller has ended. What converged while the
    job was paused, or beside an exploration, ends no row of failures.
    """
    current = (Trial.job == Job.id) & (Trial.exploration == Job.exploration)
    succeeded = Trial.converged.is_(True) & Trial.type.in_([TrialType.PRUNING, TrialType.MAB])
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
            Trial.status != TrialStatus.DISPATCHED,
            Trial.outcome_code.not_in([ENDED, LEFT, STOPPED]),
        )
        .group_by(Trial.job)
        .order_by(failures.desc())
        .limit(limit)
    )
    return [(job, number) for job, number in rows]


def count_jobs(session: Session) -> int:
    """How many jobs there are."""
    return count_rows(session, select(Job))


def count_trials(session: Session) -> dict[str, int]:
    """How many trials of each status there are, all jobs together."""
    rows = session.execute(select(Trial.status, func.count()).group_by(Trial.status))
    found = {status: number for status, number in rows}  # noqa: C416 - rows are no plain tuples
    return {status: found.get(status, 0) for status in TrialStatus}


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
    """Conditions that a column starts with a prefix, if there is one. LIKE would ignore case on some databases."""
    return [] if prefix is None else [func.substr(column, 1, len(prefix)) == prefix]


def count_rows(session: Session, rows: Select[Any]) -> int:
    """How many rows a query finds."""
    return session.scalar(select(func.count()).select_from(rows.subquery())) or 0
