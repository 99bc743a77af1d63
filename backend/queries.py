"""What can be read: jobs and trials as they stand, and a job's past decided once more."""

from datetime import UTC, datetime

from backend import states, store
from backend.core import policies, replay, thompson
from backend.core.cost import run_cost
from backend.core.state import Spec, TrialStatus
from backend.core.summary import SizeSummary, best_batch_size, summarize
from backend.errors import UnknownJob
from backend.models import Job, Trial
from backend.transactions import Session, reading, transaction
from lightning_bso.wire import BatchSizeSummary, JobListing, JobPage, JobSummary, TrialPage, TrialRecord


@reading
def describe(session: Session, job_id: str) -> JobSummary:
    """A job as it stands since its last reset.

    Raises:
        UnknownJob: there is no such job.
    """
    job = _job(session, job_id)
    trials = states.load_trials(session, job)
    state = states.load_state(session, job)
    stage, message = policies.stage(state)
    summaries = summarize(state.spec, trials, policies.ruled_out(state))
    return JobSummary(
        spec=states.spec_of(job),
        stage=stage,
        message=message,
        created_at=_utc(job.created_at),
        trials=len(trials),
        running=sum(trial.status is TrialStatus.DISPATCHED for trial in trials),
        best_batch_size=best_batch_size(summaries),
        batch_sizes=[_to_wire(summary) for summary in summaries],
    )


@reading
def list_trials(session: Session, job_id: str, offset: int, limit: int) -> TrialPage:
    """A part of a job's trials, by rising number, those from before a reset included.

    Raises:
        UnknownJob: there is no such job.
    """
    job = _job(session, job_id)
    spec = states.core_spec(job)
    total, trials = store.page_of_trials(session, job, offset, limit)
    return TrialPage(total=total, trials=[_to_record(spec, trial) for trial in trials])


@reading
def list_jobs(session: Session, offset: int, limit: int) -> JobPage:
    """A part of the jobs, newest first."""
    total, rows = store.page_of_jobs(session, offset, limit)
    listings = []
    for job, trials, running in rows:
        spec = states.spec_of(job)
        listings.append(
            JobListing(
                job_id=job.job_id,
                gpu_model=spec.gpu_model,
                policy=spec.policy,
                created_at=_utc(job.created_at),
                trials=trials,
                running=running,
            )
        )
    return JobPage(total=total, jobs=listings)


@reading
def count(session: Session) -> tuple[int, dict[str, int]]:
    """How many jobs there are, and how many trials of each status."""
    return store.count_jobs(session), store.count_trials(session)


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


def _job(session: Session, job_id: str) -> Job:
    job = store.find_job(session, job_id)
    if job is None:
        raise UnknownJob(job_id)
    return job


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
            "started_at": _utc(trial.started_at),
            "last_seen_at": _utc(trial.last_seen_at),
            "ended_at": trial.ended_at and _utc(trial.ended_at),
        }
    )


def _utc(stored: datetime) -> datetime:
    return stored.replace(tzinfo=UTC)
