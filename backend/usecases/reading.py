"""The read calls of the API: jobs, trials, beliefs and savings, and the replay of a job's decisions.

Nothing here changes data. Next: `records` builds the answers, `backend.database.queries` and `states` load the rows.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_bso.wire import JobBelief, JobListing, JobPage, JobSavings, JobSummary, TrialPage

from ..core import replay
from ..core import savings as core_savings
from ..core.attention import IN_A_ROW
from ..core.rng import seeded
from ..core.summary import Totals
from ..database import audit_log, queries, states, store
from ..database.models import Job, Trial
from ..database.queries import JobFilter
from ..database.transactions import Connection, Session, read_only, transaction
from ..errors import ReportsRemoved, UnknownJob, UnknownTrial
from .audit import Action, Actor
from .facts import facts_of
from .records import job_belief, job_savings, job_summary, trial_record, utc

MAX_RELATED_JOBS = 200
"""The jobs of a training on other GPU models are searched among the newest of its jobs, this many."""


@read_only
def describe(session: Session, job_id: str, by: Actor) -> JobSummary:
    """Return the current state of a job, since its last reset.

    Raises:
        UnknownJob: there is no such job.
    """
    job = get_job(session, job_id, by)
    return job_summary(job, states.read_state(session, job), current_totals(session, job), attention(session, job))


@read_only
def list_trials(session: Session, job_id: str, offset: int, limit: int, by: Actor) -> TrialPage:
    """Return a page of a job's trials by ascending number, trials before a reset included.

    Raises:
        UnknownJob: there is no such job.
    """
    job = get_job(session, job_id, by)
    spec = states.core_spec(job)
    total, trials = queries.page_of_trials(session, job, offset, limit)
    return TrialPage(total=total, trials=[trial_record(spec, trial) for trial in trials])


@read_only
def count_trials(session: Session, job_id: str, by: Actor) -> int:
    """Return the number of a job's trials, trials before a reset included. They are numbered from 1.

    Raises:
        UnknownJob: there is no such job.
    """
    return queries.last_trial_number(session, get_job(session, job_id, by))


@read_only
def list_jobs(session: Session, which: JobFilter, offset: int, limit: int) -> JobPage:
    """Return a page of the jobs, newest first."""
    total, jobs = queries.page_of_jobs(session, which, offset, limit)
    listing_of = _listings(session, jobs)
    return JobPage(total=total, jobs=[listing_of[job.id] for job in jobs if job.id in listing_of])


@read_only
def on_other_gpus(session: Session, job_id: str, limit: int, by: Actor) -> list[str]:
    """Return the ids of a training's jobs on other GPU models: the newest job of each, newest first.

    The jobs of a training have the same `job_id_prefix`. No jobs if there is no such job.
    """
    job = store.read_job(session, job_id)
    if job is None or not by.may_see(job_id):
        return []
    prefix = states.spec_of(job).job_id_prefix
    _, jobs = queries.page_of_jobs(session, JobFilter(prefix=prefix), 0, MAX_RELATED_JOBS)
    newest: dict[str, str] = {}
    for other in jobs:
        is_related = states.spec_of(other).job_id_prefix == prefix and by.may_see(other.job_id)
        if is_related and other.gpu_model != job.gpu_model:
            newest.setdefault(other.gpu_model, other.job_id)
    return list(newest.values())[:limit]


@read_only
def listings(session: Session, ids: Sequence[int]) -> dict[int, JobListing]:
    """Return the list entries of some jobs by their numbers in the database."""
    return _listings(session, queries.jobs_numbered(session, ids))


def _listings(session: Session, jobs: Sequence[Job]) -> dict[int, JobListing]:
    facts, last_seen = facts_of(session, jobs), queries.last_activity(session, [job.id for job in jobs])
    return {
        job.id: JobListing(
            job_id=job.job_id,
            gpu_model=job.gpu_model,
            policy=job.policy,
            created_at=utc(job.created_at),
            trials=facts[job.id].trials,
            running=facts[job.id].running,
            paused=job.paused,
            default_batch_size=states.core_spec(job).default_batch_size,
            recommended_batch_size=facts[job.id].recommended,
            best_batch_size=facts[job.id].lowest_mean,
            last_launch_at=job.last_launch_at and utc(job.last_launch_at),
            last_seen_at=utc(last_seen[job.id]) if job.id in last_seen else None,
        )
        for job in jobs
        if job.id in facts  # else deleted since
    }


@read_only
def belief(session: Session, job_id: str, by: Actor) -> JobBelief:
    """Return what a job's policy expects of each batch size, and the batch size that a run would get now.

    Raises:
        UnknownJob: there is no such job.
    """
    job = get_job(session, job_id, by)
    return job_belief(job, states.read_state(session, job), current_totals(session, job))


@read_only
def savings(session: Session, job_id: str, by: Actor) -> JobSavings:
    """Return what a job has spent and saved since its registration.

    Raises:
        UnknownJob: there is no such job.
    """
    job = get_job(session, job_id, by)
    explorations = states.load_totals(session, [job.id]).get(job.id, {})
    all_totals = [row for rows in explorations.values() for row in rows]
    return job_savings(job, core_savings.savings(states.core_spec(job), all_totals))


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of all jobs and trials."""

    jobs: int
    trials: dict[str, int]
    """By status."""


@read_only
def count(session: Session) -> Counts:
    """Count the jobs, and the trials by status."""
    return Counts(queries.count_jobs(session), queries.count_trials(session))


def attention(session: Session, job: Job) -> str | None:
    """Say why a job's last runs need attention; None: they do not."""
    for row in queries.without_success(session, None, 1, job):
        if row.crashes >= IN_A_ROW:
            return crash_loop(row.crashes, queries.outcomes(session, [(job.id, row.last_crash)])[job.id])
        if row.failures >= IN_A_ROW:
            return failing(row.failures)
    return None


def failing(failures: int) -> str:
    """Say that the last runs of a job have failed."""
    return f"{failures} runs have failed since the last success"


def crash_loop(crashes: int, error: str) -> str:
    """Say that the last runs of a job have all ended without a verdict, and how the last of them ended."""
    return f"the last {crashes} runs ended without a verdict, the latest with: {error}"


@transaction
def replay_job(connection: Connection, job_id: str) -> tuple[int, list[str]]:
    """Replay every decision on a job.

    The job is locked during the load, so that trials and reports fit together.

    Returns:
        The number of trials, and the differences between stored and replayed decisions.

    Raises:
        UnknownJob: there is no such job.
        ReportsRemoved: reports of its trials were removed, and decisions depend on them.
    """
    with store.locked_job(connection, job_id) as (job, _):
        if audit_log.has_entry(connection, job_id, Action.PRUNE, job.created_at):
            raise ReportsRemoved(
                f"reports of job {job_id!r} were removed (prune-reports), so its decisions cannot be replayed any more"
            )
        trials = states.load_history(connection, job)
        return len(trials), replay.differences(
            states.core_spec(job),
            trials,
            seeded(job.seed),
            states.initial_summary(job, 0),
            states.load_probes(job),
            states.all_breakdowns(job),
            states.load_targets(job),
        )


def get_job(session: Session, job_id: str, by: Actor) -> Job:
    """Return a job that the actor may see.

    Raises:
        UnknownJob: there is no such job, or the actor may not see it.
    """
    job = store.read_job(session, job_id)
    if job is None or not by.may_see(job_id):
        raise UnknownJob(job_id)
    return job


def get_trial(session: Session, job: Job, number: int) -> Trial:
    """Return a trial of a job.

    Raises:
        UnknownTrial: there is no such trial.
    """
    trial = queries.find_trial(session, job, number)
    if trial is None:
        raise UnknownTrial(f"job {job.job_id!r} has no trial {number}")
    return trial


def current_totals(session: Session, job: Job) -> list[Totals]:
    """Return the totals of a job's trials since its last reset."""
    return states.load_totals(session, [job.id]).get(job.id, {}).get(job.exploration, [])
