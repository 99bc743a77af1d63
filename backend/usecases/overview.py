"""The state of all jobs on one page: counts, savings, what needs attention, and what runs now.

Nothing here changes data. The sums over all jobs are kept (`backend.database.sums`). Only the trials of the jobs in the
table of savings are added up, for their regret.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import chain

from lightning_bso.wire import JobSavings, TrialRecord

from ..core import savings as core_savings
from ..core.attention import DRIFT_LAUNCHES, IN_A_ROW, RETIRED, Cause, usual_interval
from ..core.savings import Usage
from ..core.state import Stage
from ..core.summary import Totals
from ..database import queries, states, store
from ..database.models import Job, Trial
from ..database.queries import ALL_TIME, GroupSums, IdleJob, OverdueRuns, Row
from ..database.transactions import Session, read_only
from .audit import Actor
from .facts import facts_of
from .reading import crash_loop, failing
from .records import job_savings, trial_record, utc
from .savings import most_and_least, total

MAX_ROWS = 20
"""Rows of each table."""
MAX_JOBS = 1_000_000
"""At most this many jobs whose last runs failed or ended without a verdict are found."""
MAX_LATEST_JOBS = 10
"""Rows of the table of recently launched jobs."""
MAX_LABELLED_JOBS = 100
"""At most this many jobs have metrics of their own."""
MAX_CHECKED_JOBS = 200
"""At most this many jobs whose last runs failed are checked for being stuck, those with the most failures."""


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A running trial."""

    job_id: str
    default_batch_size: int
    """Of its job."""
    trial: TrialRecord
    unseen_s: float
    """Time since it was last seen."""


@dataclass(frozen=True, slots=True)
class JobForAttention:
    """A job that needs attention, and its most urgent cause."""

    job_id: str
    cause: Cause
    message: str = ""
    """The cause in words; empty: the other fields say it."""
    number: int = 0
    """How many runs it is about."""
    trial: int | None = None
    """The trial to look at first."""
    idle_s: float = 0.0
    """Time since the last launch."""
    usual_s: float = 0.0
    """The usual time between two launches."""


@dataclass(frozen=True, slots=True)
class LaunchedJob:
    """A job that was launched recently."""

    job_id: str
    default_batch_size: int
    launches: int
    """Its trials, and so the number of the last one."""
    outcome_code: str | None
    """How the last trial has ended; None: it runs."""
    last_launch_at: datetime


@dataclass(frozen=True, slots=True)
class NeverConverged:
    """A job none of whose runs has converged."""

    job_id: str
    runs: int
    spent: Usage


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of all jobs."""

    at: datetime
    """When it was read, by the database's clock."""
    job_count: int
    active_count: int
    """Jobs that were seen in the last 24 hours."""
    running_count: int
    ended_count: int
    overdue_count: int
    """Running trials that were not seen for longer than their lease. Most likely they are lost."""
    running: list[RunningTrial]
    """Running trials, longest unseen first, at most `MAX_ROWS`."""
    attention: list[JobForAttention]
    """Jobs that need attention, the most urgent first, at most `MAX_ROWS`."""
    attention_count: int
    latest: list[LaunchedJob]
    """The jobs with the latest launches, the latest first, at most `MAX_LATEST_JOBS`."""
    recommended: dict[str, int]
    """Recommended batch sizes, by job id, of the jobs in `running`, `latest` and `savings` that have one."""
    total: GroupSums
    this_month: GroupSums
    """Of the runs that ended since the month began, in UTC."""
    savings: list[JobSavings]
    """The jobs with the highest savings of energy, and those with the lowest, `MAX_ROWS` in all."""
    never_converged: list[NeverConverged]
    """Those that have spent most, at most `MAX_ROWS`."""
    never_converged_count: int


@read_only
def overview(session: Session, by: Actor, lease_s: float) -> Overview:
    """Return the state of all jobs that the actor may see."""
    prefix, now = by.job_id_prefix, store.now(session)
    overdue = queries.overdue_runs(session, prefix, now - timedelta(seconds=lease_s))
    for_attention = find_attention(session, prefix, queries.without_success(session, prefix, MAX_JOBS), overdue, now)
    never_count, never = queries.never_converged(session, prefix, MAX_ROWS)
    running = queries.running_trials(session, prefix, MAX_ROWS)
    latest = queries.latest_launched(session, prefix, MAX_LATEST_JOBS)
    extremes = [job.first for job in most_and_least(session, prefix, ALL_TIME, MAX_ROWS)]
    jobs = {job.id: job for job in queries.jobs_numbered(session, {*extremes, *(trial.job for _, trial in running)})}
    return Overview(
        at=utc(now),
        job_count=queries.count_jobs(session, prefix),
        active_count=queries.count_active(session, prefix, now - timedelta(days=1)),
        running_count=queries.count_running(session, prefix),
        ended_count=queries.count_ended(session, prefix),
        overdue_count=sum(of_job.runs for of_job in overdue),
        running=[_running(jobs[trial.job], trial, now) for _, trial in running if trial.job in jobs],
        attention=for_attention[:MAX_ROWS],
        attention_count=len(for_attention),
        latest=_launched(session, latest),
        recommended=_recommended(session, [*jobs.values(), *latest]),
        total=total(session, prefix, ALL_TIME),
        this_month=total(session, prefix, (now.date().replace(day=1), None)),
        savings=_savings(session, [jobs[number] for number in extremes if number in jobs]),
        never_converged=[
            NeverConverged(job.job_id, job.runs, Usage(job.energy_j, job.time_s, job.cost_j)) for job in never
        ],
        never_converged_count=never_count,
    )


@read_only
def revision(session: Session, by: Actor) -> str:
    """Return a text that differs after every change of a job that the actor may see."""
    return "-".join(map(str, queries.revision_of_all(session, by.job_id_prefix)))


def find_attention(
    session: Session, prefix: str | None, rows: Sequence[Row], overdue: Sequence[OverdueRuns], now: datetime
) -> list[JobForAttention]:
    """Find the jobs that need attention, the most urgent first, each with its most urgent cause.

    Args:
        session: the transaction.
        prefix: the start of the jobs' ids.
        rows: their rows of runs without a success.
        overdue: their overdue runs.
        now: the database's time.
    """
    found: dict[int, JobForAttention] = {}
    drifted = queries.drifted_jobs(session, prefix, DRIFT_LAUNCHES)
    for number, job in chain(
        _without_success(session, rows),
        ((runs.job, JobForAttention(runs.job_id, Cause.OVERDUE, "", runs.runs, runs.first)) for runs in overdue),
        ((job.id, JobForAttention(job.job_id, Cause.DRIFTED, trial=job.drifted_trial)) for job in drifted),
        ((job.job, _idle(job, now)) for job in queries.idle_jobs(session, prefix, now - RETIRED, now)),
    ):
        found.setdefault(number, job)
    urgency = list(Cause)
    return sorted(found.values(), key=lambda job: (urgency.index(job.cause), -job.number, job.job_id))


def _without_success(session: Session, rows: Sequence[Row]) -> Iterator[tuple[int, JobForAttention]]:
    stuck = _stuck(session, [row for row in rows if row.failures][:MAX_CHECKED_JOBS])
    crashing = [row for row in rows if row.crashes >= IN_A_ROW and row.id not in stuck]
    crashing.sort(key=lambda row: -row.crashes)  # as they are shown
    errors = queries.outcomes(session, [(row.id, row.last_crash) for row in crashing[:MAX_ROWS]])
    for row in rows:
        if row.id in stuck:
            yield row.id, JobForAttention(row.job_id, Cause.STUCK, stuck[row.id], row.failures, row.last_failure)
        elif row.crashes >= IN_A_ROW:
            text = crash_loop(row.crashes, errors.get(row.id, ""))
            yield row.id, JobForAttention(row.job_id, Cause.CRASHES, text, row.crashes, row.last_crash)
        elif row.failures >= IN_A_ROW:
            text = failing(row.failures)
            yield row.id, JobForAttention(row.job_id, Cause.FAILURES, text, row.failures, row.last_failure)


def _idle(job: IdleJob, now: datetime) -> JobForAttention:
    last = job.last_launch_at or job.created_at
    usual = usual_interval(job.launches, job.created_at, last) or timedelta()
    return JobForAttention(job.job_id, Cause.IDLE, idle_s=(now - last).total_seconds(), usual_s=usual.total_seconds())


def _stuck(session: Session, jobs: Sequence[Row]) -> dict[int, str]:
    """Find the jobs that are stuck, each with a message."""
    return {number: facts.message for number, facts in facts_of(session, jobs).items() if facts.stage is Stage.STUCK}


@dataclass(frozen=True, slots=True)
class Monitored:
    """Numbers for the metrics."""

    attention: dict[str, int]
    """Jobs that need attention, by their most urgent cause."""
    failures_in_a_row: int
    """The most failed runs of a job since its last success."""
    crashes_in_a_row: int
    """The most runs of a job that ended without a verdict since its last one."""
    overdue_count: int
    total: GroupSums
    recommended: dict[str, int]
    """Recommended batch sizes by job id, of the `MAX_LABELLED_JOBS` with the latest launches."""


@read_only
def monitored(session: Session, lease_s: float) -> Monitored:
    """Return the numbers that are watched, over all jobs."""
    now = store.now(session)
    overdue = queries.overdue_runs(session, None, now - timedelta(seconds=lease_s))
    rows = queries.without_success(session, None, MAX_JOBS)
    causes = Counter(job.cause for job in find_attention(session, None, rows, overdue, now))
    latest = queries.latest_launched(session, None, MAX_LABELLED_JOBS)
    return Monitored(
        {cause.value: causes[cause] for cause in Cause},
        failures_in_a_row=max((row.failures for row in rows), default=0),
        crashes_in_a_row=max((row.crashes for row in rows), default=0),
        overdue_count=sum(of_job.runs for of_job in overdue),
        total=total(session, None, ALL_TIME),
        recommended=_recommended(session, latest),
    )


def _recommended(session: Session, jobs: Sequence[Job]) -> dict[str, int]:
    facts = facts_of(session, jobs)
    return {job.job_id: size for job in jobs if job.id in facts and (size := facts[job.id].recommended) is not None}


def _running(job: Job, trial: Trial, now: datetime) -> RunningTrial:
    spec = states.core_spec(job)
    unseen_s = max(0.0, (now - trial.last_seen_at).total_seconds())
    return RunningTrial(job.job_id, spec.default_batch_size, trial_record(spec, trial), unseen_s)


def _launched(session: Session, jobs: Sequence[Job]) -> list[LaunchedJob]:
    codes = queries.outcome_codes(session, [(job.id, job.launches) for job in jobs])
    return [
        LaunchedJob(
            job_id=job.job_id,
            default_batch_size=states.core_spec(job).default_batch_size,
            launches=job.launches,
            outcome_code=codes[job.id],
            last_launch_at=utc(job.last_launch_at or job.created_at),
        )
        for job in jobs
        if job.id in codes  # else deleted since
    ]


def _savings(session: Session, jobs: Sequence[Job]) -> list[JobSavings]:
    totals_of = states.load_totals(session, [job.id for job in jobs])
    return [
        job_savings(job, core_savings.savings(states.core_spec(job), _flat(totals_of.get(job.id, {})))) for job in jobs
    ]


def _flat(explorations: Mapping[int, list[Totals]]) -> list[Totals]:
    return [group for of_exploration in explorations.values() for group in of_exploration]
