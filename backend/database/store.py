"""Find, add and change the rows of jobs, trials and reports that the calls of a run need.

No decision is made here: rules live in `backend.core`. `states` loads the data for decisions, and `backend.usecases`
combines these functions into transactions. A changed row is stored by `rows.save`. Rows to show are read by `queries`.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any, cast

from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Table,
    bindparam,
    delete,
    func,
    select,
    update,
)
from sqlalchemy.orm import InstrumentedAttribute, Session, aliased

from lightning_bso.quantities import duration
from lightning_bso.wire import RegisteredJobSpec

from ..core.gp_ucb.belief import WarmStart
from ..core.rng import position_of, seeded
from ..core.savings import team_of
from ..core.state import Choice, EndCode, TrialStatus, TrialType, Verdict
from ..core.state import Report as CoreReport
from ..errors import UnknownJob
from . import batches, rows, sums
from .extensions import Base
from .models import Job, Report, StoredBelief, Trial, utc_now

ENDED, LEFT, STOPPED, LOST = EndCode
"""Outcome codes of trials that ended without a verdict."""

# The statements of every call are built once, because building one takes longer than SQLite takes to run it. UPDATEs
# address the tables, because their rows are not loaded as objects.
_JOBS = cast(Table, Job.__table__)
_RAISE_REVISION = (
    update(_JOBS)
    .where(_JOBS.c.job_id == bindparam("wanted_id"))
    .values(revision=_JOBS.c.revision + 1, summed_revision=_JOBS.c.summed_revision + 1)
)
_JOB = select(*rows.columns(Job)).where(Job.job_id == bindparam("wanted_id"))
_LAST_NUMBER = select(func.max(Report.number)).where(Report.trial == Trial.id).correlate(Trial).scalar_subquery()
_LAST_REPORT = (Report.trial == Trial.id) & (Report.number == _LAST_NUMBER)
_OTHER = aliased(Trial)
# All sources of an exploration are the same.
_SOURCE_OF_OTHERS = (
    select(_OTHER.energy_source)
    .where(_OTHER.job == Trial.job, _OTHER.exploration == Trial.exploration, _OTHER.energy_source.is_not(None))
    .order_by(_OTHER.number.desc())
    .limit(1)
    .correlate(Trial)
    .scalar_subquery()
)
_LAST_TRIAL = (
    select(func.coalesce(func.max(_OTHER.number), 0)).where(_OTHER.job == Job.id).correlate(Job).scalar_subquery()
)


_PARTS_OF_RUN = (Job, Trial, Report, StoredBelief)
"""The classes of the rows of a `LockedRun`."""


def _select_run(
    which: ColumnElement[bool], exploration: InstrumentedAttribute[int], last: ColumnElement[Any], *, packed: bool
) -> Select[*tuple[Any, ...]]:
    """Build the statement that reads a job, one of its trials, that trial's last report, and a stored summary."""
    return (
        select(*rows.select_parts(_PARTS_OF_RUN, utc_now(), last, packed=packed))
        .select_from(Job)
        .outerjoin(Trial, (Trial.job == Job.id) & which)
        .outerjoin(Report, _LAST_REPORT)
        .outerjoin(StoredBelief, (StoredBelief.job == Job.id) & (StoredBelief.exploration == exploration))
        .where(Job.job_id == bindparam("wanted_id"))
    )


@cache
def _job_and_time(*, packed: bool) -> Select[*tuple[Any, ...]]:
    return select(*rows.select_parts([Job], utc_now(), packed=packed)).where(Job.job_id == bindparam("wanted_id"))


@cache
def _run(*, packed: bool) -> Select[*tuple[Any, ...]]:
    source = cast("ColumnElement[Any]", Trial.energy_source)
    return _select_run(Trial.number == bindparam("number"), Trial.exploration, source, packed=packed)


@cache
def _run_and_sources(*, packed: bool) -> Select[*tuple[Any, ...]]:
    source = func.coalesce(Trial.energy_source, _SOURCE_OF_OTHERS)
    return _select_run(Trial.number == bindparam("number"), Trial.exploration, source, packed=packed)


@cache
def _run_that_asks(*, packed: bool) -> Select[*tuple[Any, ...]]:
    return _select_run(Trial.run_id == bindparam("run_id"), Job.exploration, _LAST_TRIAL, packed=packed)


_TRIAL = select(*rows.columns(Trial)).where(Trial.id == bindparam("of_trial"))
_REPORT = select(*rows.columns(Report)).where(
    Report.trial == bindparam("of_trial"), Report.number == bindparam("wanted_number")
)
_CONVERGED = (
    select(Trial.id)
    .where(Trial.job == bindparam("of_job"), Trial.exploration == bindparam("of_exploration"))
    .where(Trial.batch_size == bindparam("size"), Trial.converged.is_(True))
    .limit(1)
)
_OLDEST_SEEN = select(func.min(Trial.last_seen_at)).where(
    Trial.job == bindparam("of_job"), Trial.status == TrialStatus.DISPATCHED, Trial.id != bindparam("except_for")
)
_EXPIRED = (
    select(*rows.columns(Trial))
    .where(Trial.job == bindparam("of_job"), Trial.id != bindparam("except_for"))
    .where(Trial.status == TrialStatus.DISPATCHED, Trial.last_seen_at < bindparam("since"))
)


def now(reads: Session | Connection) -> datetime:
    """Return the database's time, in UTC."""
    return reads.execute(select(utc_now())).scalar_one()


@contextmanager
def locked_job(connection: Connection, job_id: str) -> Iterator[tuple[Job, datetime]]:
    """Lock a job until the transaction ends, by raising its revision. At the end, store the job as far as it changed.

    Call this before any read.

    An UPDATE locks the row on every database, also on a cluster that writes on several nodes. There, SELECT … FOR
    UPDATE does not lock a row that the transaction does not write.

    Yields:
        The job, and the database's time.

    Raises:
        UnknownJob: there is no such job.
    """
    job, at = _lock_and_read(connection, _job_and_time, {"wanted_id": job_id}, Job)
    yield job, at
    rows.save(connection, job)


@dataclass(slots=True)
class LockedRun:
    """A locked job with what most calls of a run read and change."""

    job: Job
    trial: Trial | None
    """The run's trial; None: there is no such trial."""
    last_report: Report | None
    """The trial's last report; None before the first."""
    belief: StoredBelief | None
    """The stored summary of the trial's exploration, or of the job's current one for a run that asks."""
    at: datetime
    """The database's time."""
    energy_source: str | None = None
    """The energy source of the trial, else that of the other runs of its exploration, if it is read."""
    new: list[Base] = field(default_factory=list)
    """Rows to store when the call ends."""


@contextmanager
def locked_run(connection: Connection, job_id: str, number: int, *, reads_sources: bool) -> Iterator[LockedRun]:
    """Lock a job as `locked_job` does, with one of its trials. At the end, store what has changed of both.

    Args:
        connection: the transaction.
        job_id: the job.
        number: the trial's number.
        reads_sources: whether to read the energy source of the other runs for a run that has named none.

    Raises:
        UnknownJob: there is no such job.
    """
    query = _run_and_sources if reads_sources else _run  # its subquery takes MariaDB a fifth of the query's time
    run = LockedRun(*_lock_and_read(connection, query, {"wanted_id": job_id, "number": number}, *_PARTS_OF_RUN))
    yield run
    _save(connection, run)


@contextmanager
def locked_to_ask(connection: Connection, job_id: str, run_id: str | None) -> Iterator[tuple[LockedRun, int]]:
    """Lock a job as `locked_job` does, with the trial that a run has from an earlier ask.

    Yields:
        The job, and the number of its last trial; 0 before the first.

    Raises:
        UnknownJob: there is no such job.
    """
    values = {"wanted_id": job_id, "run_id": run_id}
    *parts, last_number = _lock_and_read(connection, _run_that_asks, values, *_PARTS_OF_RUN)
    run = LockedRun(*parts)
    yield run, last_number
    _save(connection, run)


def _lock_and_read(
    connection: Connection,
    query: Callable[..., Select[*tuple[Any, ...]]],
    values: Mapping[str, Any],
    *parts: type[Base],
) -> list[Any]:
    """Return the rows of some parts, the database's time, and the query's further values."""
    packed = rows.is_packed(connection)
    (found, *_), read = batches.execute(connection, (_RAISE_REVISION, values), (query(packed=packed), values))
    if not found:
        raise UnknownJob(values["wanted_id"])
    of_parts = rows.load_parts(parts, read[0], packed=packed)
    if packed:
        of_parts[len(parts)] = datetime.fromisoformat(of_parts[len(parts)])
    return of_parts


def _save(connection: Connection, run: LockedRun) -> None:
    counted = sums.count(connection, run.job, run.trial, *run.new)
    rows.save(connection, *run.new, run.job, run.trial, run.belief, also=counted)
    if run.job.summed_revision != run.job.revision or not run.job.team:  # an earlier release knows no team
        sums.recount(connection, run.job)


def save_trial(connection: Connection, job: Job, trial: Trial) -> None:
    """Store what has changed of a trial before its call ends, because the call reads it again."""
    rows.save(connection, trial, also=sums.count(connection, job, trial))


def next_revision(job: Job) -> None:
    """Raise the revision of a locked job once more, for a change that needs a revision of its own."""
    job.revision += 1
    job.summed_revision += 1


def read_job(reads: Session | Connection, job_id: str) -> Job | None:
    """Return a job without locking it."""
    values = reads.execute(_JOB, {"wanted_id": job_id}).one_or_none()
    return None if values is None else rows.load(Job, values)


def add_job(connection: Connection, spec: RegisteredJobSpec, seed: int, warm_start: WarmStart | None) -> Job:
    """Store a new job. An IntegrityError means that another call registered the id first."""
    at = now(connection)
    job = rows.new(
        Job,
        job_id=spec.job_id,
        spec=spec.model_dump_json(),
        policy=spec.policy,
        gpu_model=spec.gpu_model,
        seed=seed,
        rng_position=position_of(seeded(seed)),
        warm_start=None if warm_start is None else json.dumps(asdict(warm_start)),
        revision=0,
        exploration=0,
        paused=False,
        created_at=at,
        oldest_seen_at=at,
        summed_revision=0,
        team=team_of(spec.job_id or ""),
        **sums.NOTHING,
    )
    rows.add(connection, job)
    return job


def delete_job(connection: Connection, job: Job) -> None:
    """Delete a job with its trials and reports."""
    connection.execute(delete(Job).where(Job.id == job.id))


def new_trial(
    job: Job,
    at: datetime,
    number: int,
    run_id: str | None,
    choice: Choice,
    host: str | None,
    process: str | None,
) -> Trial:
    """Return a new trial, to be stored."""
    return rows.new(
        Trial,
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
        epoch_limit_j=choice.epoch_limit_j,
        status=TrialStatus.DISPATCHED,
        energy_j=0.0,
        time_s=0.0,
        epochs=0,
        energy_after_j=0.0,
        time_after_s=0.0,
        accumulate_grad_batches=1,
        started_revision=job.revision,
        started_at=at,
        last_seen_at=at,
    )


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


def expire_trials(connection: Connection, job: Job, at: datetime, lease_s: float, *, except_for: Trial | None) -> bool:
    """End the job's running trials whose lease has expired, except one. Returns whether a lease can have expired."""
    if job.oldest_seen_at is not None and job.oldest_seen_at >= at - timedelta(seconds=lease_s):
        if at < job.oldest_seen_at:  # the database's clock has been set back
            job.oldest_seen_at = at
        return False
    others = {"of_job": job.id, "except_for": except_for.id if except_for else 0}
    found = connection.execute(_EXPIRED, others | {"since": at - timedelta(seconds=lease_s)})
    expired = [rows.load(Trial, values) for values in found]
    for trial in expired:
        reason = f"the lease expired: no call for {duration(lease_s)}, so the run counts as lost"
        end_trial(trial, job, at, TrialStatus.FAILED, LOST, reason)
    rows.save(connection, *expired, also=sums.count(connection, job, *expired))
    oldest = connection.scalar(_OLDEST_SEEN, others)
    job.oldest_seen_at = at if oldest is None else min(oldest, at)
    return True


def trials_of(connection: Connection, job: Job) -> list[Trial]:
    """Return all trials of a job, by rising number."""
    return _load_trials(connection, Trial.job == job.id)


def calibrated_trials(reads: Session | Connection, job: Job, exploration: int) -> list[Trial]:
    """Return an exploration's calibration runs that have ended and wait for the target, by rising number."""
    is_calibrated = Trial.status == TrialStatus.CALIBRATED
    return _load_trials(reads, Trial.job == job.id, Trial.exploration == exploration, is_calibrated)


def open_calibration(connection: Connection, job: Job, exploration: int) -> list[Trial]:
    """Return an exploration's calibration runs that still run or are lost, by rising number."""
    is_open = (Trial.status == TrialStatus.DISPATCHED) | (Trial.outcome_code == LOST)
    of_exploration = (Trial.job == job.id, Trial.exploration == exploration, Trial.type == TrialType.CALIBRATION)
    return _load_trials(connection, *of_exploration, is_open)


def _load_trials(reads: Session | Connection, *which: ColumnElement[bool]) -> list[Trial]:
    query = select(*rows.columns(Trial)).where(*which).order_by(Trial.number)
    return [rows.load(Trial, values) for values in reads.execute(query)]


def source_of_others(connection: Connection, trial: Trial) -> str | None:
    """Return the energy source of the other runs of a trial's exploration; None: none has named it."""
    query = select(_SOURCE_OF_OTHERS).select_from(Trial).where(Trial.id == trial.id)
    return connection.scalar(query)


def has_converged(connection: Connection, trial: Trial) -> bool:
    """Return whether a run of the trial's exploration has converged with the trial's batch size."""
    values = {"of_job": trial.job, "of_exploration": trial.exploration, "size": trial.batch_size}
    return connection.execute(_CONVERGED, values).first() is not None


def read_trial(connection: Connection, trial: Trial) -> Trial:
    """Return a trial as another statement of this transaction has stored it."""
    return rows.load(Trial, connection.execute(_TRIAL, {"of_trial": trial.id}).one())


def find_report(connection: Connection, trial: Trial, number: int) -> Report | None:
    """Return a report of a trial by its number."""
    values = connection.execute(_REPORT, {"of_trial": trial.id, "wanted_number": number}).one_or_none()
    return None if values is None else rows.load(Report, values)


def new_report(trial: Trial, job: Job, at: datetime, number: int, report: CoreReport, verdict: Verdict) -> Report:
    """Return a report with its verdict, to be stored, and copy its totals to the trial."""
    trial.energy_j, trial.time_s, trial.epochs = report.energy_j, report.time_s, report.epoch
    return rows.new(
        Report,
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
