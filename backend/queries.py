"""What can be read: jobs and trials as they stand, what policies believe, and a job's past decided once more."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from backend import audit, states, store
from backend.audit import Actor
from backend.core import policies, replay, savings, thompson
from backend.core.cost import run_cost
from backend.core.savings import Savings
from backend.core.state import JobState, NothingConverges, Spec, TrialStatus
from backend.core.state import Trial as CoreTrial
from backend.core.summary import SizeSummary, Totals, best_batch_size, summarize
from backend.errors import UnknownJob, UnknownTrial
from backend.models import Job, Trial
from backend.store import JobFilter
from backend.transactions import Session, reading, transaction
from lightning_bso.wire import (
    AuditPage,
    AuditRecord,
    BatchSizeSummary,
    JobBelief,
    JobListing,
    JobPage,
    JobSavings,
    JobSummary,
    SizeBelief,
    TrialPage,
    TrialRecord,
    Usage,
)

MOST_PLOTTED = 500
"""Trials of a job that are plotted, the last to end; what came before is added up."""
MOST_LISTED = 20
"""Lines of each list of the overview."""
FAILURES_FOR_A_PERSON = 3
"""So many runs of a job in a row without a success are for a person to look at."""


@reading
def describe(session: Session, job_id: str, by: Actor) -> JobSummary:
    """A job as it stands since its last reset.

    Raises:
        UnknownJob: there is no such job.
    """
    job = _job(session, job_id, by)
    totals = _totals(session, job)
    state = states.load_state(session, job)
    stage, message = policies.stage(state)
    summaries = summarize(state.spec, totals, policies.ruled_out(state))
    return JobSummary(
        spec=states.spec_of(job),
        paused=job.paused,
        stage=stage,
        message=message,
        created_at=_utc(job.created_at),
        trials=_count(totals),
        running=_count(totals, TrialStatus.DISPATCHED),
        best_batch_size=best_batch_size(summaries),
        batch_sizes=[_to_wire(summary) for summary in summaries],
    )


@reading
def list_trials(session: Session, job_id: str, offset: int, limit: int, by: Actor) -> TrialPage:
    """A part of a job's trials, by rising number, those from before a reset included.

    Raises:
        UnknownJob: there is no such job.
    """
    job = _job(session, job_id, by)
    spec = states.core_spec(job)
    total, trials = store.page_of_trials(session, job, offset, limit)
    return TrialPage(total=total, trials=[_to_record(spec, trial) for trial in trials])


@reading
def list_jobs(session: Session, which: JobFilter, offset: int, limit: int) -> JobPage:
    """A part of the jobs, newest first."""
    total, jobs = store.page_of_jobs(session, which, offset, limit)
    found = _listings(session, jobs)
    return JobPage(total=total, jobs=[found[job.id] for job in jobs])


@reading
def listings(session: Session, numbers: Sequence[int]) -> dict[int, JobListing]:
    """How some jobs stand, by their numbers in the database."""
    return _listings(session, store.jobs_numbered(session, numbers))


def _listings(session: Session, jobs: Sequence[Job]) -> dict[int, JobListing]:
    numbers = [job.id for job in jobs]
    all_totals, seen = states.load_totals(session, numbers), store.last_activity(session, numbers)
    found = {}
    for job in jobs:
        explorations = all_totals.get(job.id, {})
        ever = [one for totals in explorations.values() for one in totals]
        summaries = summarize(states.core_spec(job), explorations.get(job.exploration, []), {})
        found[job.id] = JobListing(
            job_id=job.job_id,
            gpu_model=job.gpu_model,
            policy=job.policy,
            created_at=_utc(job.created_at),
            trials=_count(ever),
            running=_count(ever, TrialStatus.DISPATCHED),
            paused=job.paused,
            best_batch_size=best_batch_size(summaries),
            last_seen_at=_utc(seen[job.id]) if job.id in seen else None,
        )
    return found


@reading
def believed(session: Session, job_id: str, by: Actor) -> JobBelief:
    """What a job's policy believes, and what a run that asks now would get.

    Raises:
        UnknownJob: there is no such job.
    """
    job = _job(session, job_id, by)
    return _belief(job, states.load_state(session, job), _totals(session, job))


@reading
def saved(session: Session, job_id: str, by: Actor) -> JobSavings:
    """What a job has spent and saved since it was registered.

    Raises:
        UnknownJob: there is no such job.
    """
    job = _job(session, job_id, by)
    explorations = states.load_totals(session, [job.id]).get(job.id, {})
    return _to_savings(job, [one for totals in explorations.values() for one in totals])


@dataclass(frozen=True, slots=True)
class History:
    """What a job's plots are made of."""

    spec: Spec
    ended: list[CoreTrial]
    """The trials that ended last, in the order of their ends."""
    before: list[Totals]
    """All that ended before these."""
    summaries: list[SizeSummary]
    """Of every batch size, over all trials since the last reset."""
    savings: JobSavings
    belief: JobBelief


@reading
def history(session: Session, job_id: str, by: Actor) -> History:
    """What a job's plots are made of; of a long history the last trials, and the sums of the others.

    Raises:
        UnknownJob: there is no such job.
    """
    job = _job(session, job_id, by)
    spec, state = states.core_spec(job), states.load_state(session, job)
    ended = states.load_last_ended(session, job, MOST_PLOTTED)
    first = ended[0].ended if len(ended) == MOST_PLOTTED else None
    explorations = states.load_totals(session, [job.id]).get(job.id, {})
    before = {} if first is None else states.load_totals(session, [job.id], before=first).get(job.id, {})
    current = explorations.get(job.exploration, [])
    return History(
        spec,
        ended,
        [one for totals in before.values() for one in totals],
        summarize(spec, current, policies.ruled_out(state)),
        _to_savings(job, [one for totals in explorations.values() for one in totals]),
        _belief(job, state, current),
    )


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """A report as it was answered."""

    number: int
    epoch: int
    metric: float | None
    energy_j: float
    time_s: float
    cost_j: float
    verdict: str
    received_at: datetime


@reading
def trial(session: Session, job_id: str, number: int, by: Actor) -> TrialRecord:
    """One trial.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
    """
    job = _job(session, job_id, by)
    return _to_record(states.core_spec(job), _trial(session, job, number))


@reading
def list_reports(
    session: Session, job_id: str, number: int, offset: int, limit: int, by: Actor
) -> tuple[int, list[ReportRecord]]:
    """How many reports a trial has, and a part of them in their order.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
    """
    job = _job(session, job_id, by)
    spec = states.core_spec(job)
    total, reports = store.reports_of(session, _trial(session, job, number), offset, limit)
    return total, [
        ReportRecord(
            one.number,
            one.epoch,
            one.metric,
            one.energy_j,
            one.time_s,
            run_cost(spec, one.energy_j, one.time_s),
            one.message,
            _utc(one.received_at),
        )
        for one in reports
    ]


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A run under way."""

    job_id: str
    trial: TrialRecord
    silent_s: float
    """Since it was last heard of."""


@dataclass(frozen=True, slots=True)
class FailingJob:
    """A job whose last runs have all failed."""

    job_id: str
    failures: int
    stage: str
    message: str


@dataclass(frozen=True, slots=True)
class Overview:
    """How all jobs stand together."""

    jobs: int
    active_today: int
    """Jobs heard of in the last 24 hours."""
    trials: dict[str, int]
    """By status."""
    running: list[RunningTrial]
    """Those unheard of for longest first."""
    failing: list[FailingJob]
    """The worst first."""
    savings: list[JobSavings]
    """Of all jobs with runs that ended, those that saved most first; unknown ones last."""


@reading
def overview(session: Session, by: Actor) -> Overview:
    """How all jobs stand together."""
    prefix, now = by.job_id_prefix, store.now(session)
    total, jobs = store.page_of_jobs(session, JobFilter(prefix=prefix), 0, 1_000_000)
    by_number = {job.id: job for job in jobs}
    all_totals = states.load_totals(session, None if prefix is None else list(by_number))
    sums: dict[str, int] = dict.fromkeys(TrialStatus, 0)
    found = []
    for number, explorations in all_totals.items():
        ever = [one for totals in explorations.values() for one in totals]
        for one in ever:
            sums[one.status] += one.trials
        if number in by_number:  # it may be new
            found.append(_to_savings(by_number[number], ever))
    found = [one for one in found if one.launches]
    found.sort(key=lambda one: -one.against_default.cost if one.against_default else float("inf"))
    running = [
        RunningTrial(job_id, _to_record(states.core_spec(by_number[run.job]), run), _seconds(now - run.last_seen_at))
        for job_id, run in store.running_trials(session, prefix, MOST_LISTED)
        if run.job in by_number
    ]
    failing = []
    for number, failures in store.failing_jobs(session, prefix, FAILURES_FOR_A_PERSON, MOST_LISTED):
        if number in by_number:
            stage, message = policies.stage(states.load_state(session, by_number[number]))
            failing.append(FailingJob(by_number[number].job_id, failures, stage, message))
    active = store.count_active(session, prefix, now - timedelta(days=1))
    return Overview(total, active, sums, running, failing, found)


@reading
def count(session: Session) -> tuple[int, dict[str, int]]:
    """How many jobs there are, and how many trials of each status."""
    return store.count_jobs(session), store.count_trials(session)


def list_audit(by: Actor, job_id: str | None, offset: int, limit: int) -> AuditPage:
    """A part of the audit log, newest first."""
    total, rows = audit.page(by, job_id, offset, limit)
    entries = [
        AuditRecord(
            at=_utc(row.at),
            actor=row.actor,
            address=row.address,
            action=row.action,
            job_id=row.job_id,
            detail=row.detail,
        )
        for row in rows
    ]
    return AuditPage(total=total, entries=entries)


@transaction
def replay_job(session: Session, job_id: str) -> tuple[int, list[str]]:
    """Take every decision on a job once more. Returns the number of its trials and what came out otherwise.

    The job is locked meanwhile, so that trials and reports are of one moment.

    Raises:
        UnknownJob: there is no such job.
    """
    job, _ = store.lock_job(session, job_id)
    past = states.load_past(session, job)
    return len(past), replay.differences(
        states.core_spec(job),
        past,
        thompson.seeded(job.seed),
        states.beginning_of(job, 0),
        states.load_probes(job),
    )


def _job(session: Session, job_id: str, by: Actor) -> Job:
    job = store.find_job(session, job_id)
    if job is None or not by.may_know(job_id):
        raise UnknownJob(job_id)
    return job


def _trial(session: Session, job: Job, number: int) -> Trial:
    found = store.trial_numbered(session, job, number)
    if found is None:
        raise UnknownTrial(f"job {job.job_id!r} has no trial {number}")
    return found


def _totals(session: Session, job: Job) -> list[Totals]:
    return states.load_totals(session, [job.id]).get(job.id, {}).get(job.exploration, [])


def _count(totals: Sequence[Totals], status: TrialStatus | None = None) -> int:
    return sum(one.trials for one in totals if status in (None, one.status))


def _belief(job: Job, state: JobState, totals: Sequence[Totals]) -> JobBelief:
    summaries = {one.batch_size: one for one in summarize(state.spec, totals, policies.ruled_out(state))}
    try:
        rng = states.load_rng(job)  # a copy: what would be drawn is drawn once more when a run asks
        choice = policies.choose_while_paused(state.spec) if job.paused else policies.choose(state, rng)
        next_batch_size, next_reason = choice.batch_size, choice.reason
    except NothingConverges as error:
        next_batch_size, next_reason = None, str(error)
    return JobBelief(
        job_id=job.job_id,
        policy=job.policy,
        batch_sizes=[
            SizeBelief(
                batch_size=one.batch_size,
                expected_cost=one.expected_j,
                standard_deviation=one.sd_j,
                runs=summaries[one.batch_size].runs,
                ruled_out=summaries[one.batch_size].ruled_out,
            )
            for one in policies.expectations(state)
        ],
        next_batch_size=next_batch_size,
        next_reason=next_reason,
        cost_bound=policies.bound(state),
    )


def _to_savings(job: Job, totals: Sequence[Totals]) -> JobSavings:
    spec = states.core_spec(job)
    found: Savings = savings.savings(spec, totals)
    return JobSavings(
        job_id=job.job_id,
        launches=found.launches,
        recurrences=found.recurrences,
        spent=_to_usage(found.spent),
        default_batch_size=spec.default_batch_size,
        against_default=found.against_default and _to_usage(found.against_default),
        best_batch_size=found.best_batch_size,
        against_best=found.against_best and _to_usage(found.against_best),
    )


def _to_usage(usage: savings.Usage) -> Usage:
    return Usage(energy=usage.energy_j, time=usage.time_s, cost=usage.cost_j)


def _to_wire(summary: SizeSummary) -> BatchSizeSummary:
    return BatchSizeSummary(
        batch_size=summary.batch_size,
        runs=summary.runs,
        converged=summary.converged,
        lost=summary.lost,
        mean_cost=summary.mean_cost_j,
        mean_energy=summary.mean_energy_j,
        mean_time=summary.mean_time_s,
        mean_epochs=summary.mean_epochs,
        ruled_out=summary.ruled_out,
    )


def _to_record(spec: Spec, trial: Trial) -> TrialRecord:
    return TrialRecord.model_validate(
        {
            "trial_number": trial.number,
            "run_id": trial.run_id,
            "exploration": trial.exploration,
            "batch_size": trial.batch_size,
            "type": trial.type,
            "status": trial.status,
            "reason": trial.reason,
            "outcome_code": trial.outcome_code,
            "outcome": trial.outcome,
            "converged": trial.converged,
            "energy": trial.energy_j,
            "time": trial.time_s,
            "current_epoch": trial.epochs,
            "cost": run_cost(spec, trial.energy_j, trial.time_s),
            "energy_source": trial.energy_source,
            "accumulate_grad_batches": trial.accumulate_grad_batches,
            "host": trial.host,
            "started_at": _utc(trial.started_at),
            "last_seen_at": _utc(trial.last_seen_at),
            "ended_at": trial.ended_at and _utc(trial.ended_at),
        }
    )


def _utc(stored: datetime) -> datetime:
    return stored.replace(tzinfo=UTC)


def _seconds(duration: timedelta) -> float:
    return max(0.0, duration.total_seconds())
