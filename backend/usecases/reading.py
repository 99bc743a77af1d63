"""What can be read: jobs and trials as they stand, what policies believe, and a job's past decided once more."""

from collections.abc import Sequence

from backend.core import replay, savings
from backend.core.rng import seeded
from backend.core.state import TrialStatus
from backend.core.summary import Totals, best_batch_size, summarize
from backend.database import states, store
from backend.database.models import Job, Trial
from backend.database.store import JobFilter
from backend.database.transactions import Session, read_only, transaction
from backend.errors import UnknownJob, UnknownTrial
from backend.usecases.audit import Actor
from backend.usecases.records import job_belief, job_savings, job_summary, trial_count, trial_record, utc
from lightning_bso.wire import JobBelief, JobListing, JobPage, JobSavings, JobSummary, TrialPage


@read_only
def describe(session: Session, job_id: str, by: Actor) -> JobSummary:
    """A job as it stands since its last reset.

    Raises:
        UnknownJob: there is no such job.
    """
    job = known_job(session, job_id, by)
    return job_summary(job, states.load_state(session, job), current_totals(session, job))


@read_only
def list_trials(session: Session, job_id: str, offset: int, limit: int, by: Actor) -> TrialPage:
    """A part of a job's trials, by rising number, those from before a reset included.

    Raises:
        UnknownJob: there is no such job.
    """
    job = known_job(session, job_id, by)
    spec = states.core_spec(job)
    total, trials = store.page_of_trials(session, job, offset, limit)
    return TrialPage(total=total, trials=[trial_record(spec, trial) for trial in trials])


@read_only
def list_jobs(session: Session, which: JobFilter, offset: int, limit: int) -> JobPage:
    """A part of the jobs, newest first."""
    total, jobs = store.page_of_jobs(session, which, offset, limit)
    found = _listings(session, jobs)
    return JobPage(total=total, jobs=[found[job.id] for job in jobs])


@read_only
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
            created_at=utc(job.created_at),
            trials=trial_count(ever),
            running=trial_count(ever, TrialStatus.DISPATCHED),
            paused=job.paused,
            best_batch_size=best_batch_size(summaries),
            last_seen_at=utc(seen[job.id]) if job.id in seen else None,
        )
    return found


@read_only
def believed(session: Session, job_id: str, by: Actor) -> JobBelief:
    """What a job's policy believes, and what a run that asks now would get.

    Raises:
        UnknownJob: there is no such job.
    """
    job = known_job(session, job_id, by)
    return job_belief(job, states.load_state(session, job), current_totals(session, job))


@read_only
def saved(session: Session, job_id: str, by: Actor) -> JobSavings:
    """What a job has spent and saved since it was registered.

    Raises:
        UnknownJob: there is no such job.
    """
    job = known_job(session, job_id, by)
    explorations = states.load_totals(session, [job.id]).get(job.id, {})
    ever = [one for totals in explorations.values() for one in totals]
    return job_savings(job, savings.savings(states.core_spec(job), ever))


@read_only
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
        seeded(job.seed),
        states.beginning_of(job, 0),
        states.load_probes(job),
    )


def known_job(session: Session, job_id: str, by: Actor) -> Job:
    """A job that exists for who is asking.

    Raises:
        UnknownJob: there is none.
    """
    job = store.find_job(session, job_id)
    if job is None or not by.may_know(job_id):
        raise UnknownJob(job_id)
    return job


def known_trial(session: Session, job: Job, number: int) -> Trial:
    """A trial of a job.

    Raises:
        UnknownTrial: there is no such trial.
    """
    found = store.trial_numbered(session, job, number)
    if found is None:
        raise UnknownTrial(f"job {job.job_id!r} has no trial {number}")
    return found


def current_totals(session: Session, job: Job) -> list[Totals]:
    """A job's trials since its last reset, added up."""
    return states.load_totals(session, [job.id]).get(job.id, {}).get(job.exploration, [])
