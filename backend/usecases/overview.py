"""The state of all jobs on one page: counts, savings, what needs attention, and what runs now.

Nothing here changes data, and nothing adds up trials: the sums are kept (`backend.database.sums`).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from threading import Lock

from cachetools import LRUCache

from lightning_bso.wire import JobSavings, TrialRecord

from ..core import savings as core_savings
from ..core.attention import IN_A_ROW, Cause, has_just_drifted, is_idle, usual_interval
from ..core.savings import Usage
from ..core.state import Stage
from ..core.summary import Totals
from ..database import queries, states, store
from ..database.models import Job
from ..database.queries import KeptSums
from ..database.transactions import Session, read_only
from .audit import Actor
from .reading import crash_loop, failing
from .records import job_savings, stage_of, trial_record, utc

MAX_ROWS = 20
"""Rows of each table."""
MAX_CHECKED_JOBS = 200
"""At most this many jobs whose last runs failed are checked for being stuck, those with the most failures."""


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A running trial."""

    job_id: str
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
class Total:
    """The savings of all jobs against their default batch sizes."""

    saved: Usage
    """Of the jobs with known savings. Negative: a loss."""
    known: int
    """Number of these jobs."""
    unknown: int
    """Number of the jobs with ended runs whose default has never converged."""


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
    total: Total
    this_month: Total
    """Of the runs that ended since the month began, in UTC."""
    savings: list[JobSavings]
    """The jobs with the highest savings of cost, and those with the lowest, `MAX_ROWS` in all."""
    never_converged: list[NeverConverged]
    """Those that have spent most, at most `MAX_ROWS`."""
    never_converged_count: int


@read_only
def overview(session: Session, by: Actor, lease_s: float) -> Overview:
    """Return the state of all jobs that the actor may see."""
    prefix, now = by.job_id_prefix, store.now(session)
    kept = queries.kept_sums(session, prefix)
    overdue = queries.overdue_runs(session, prefix, now - timedelta(seconds=lease_s))
    for_attention = find_attention(session, prefix, kept, overdue, now)
    never = [job for job in kept if job.sums.runs and not job.sums.recurrences]
    never.sort(key=lambda job: -job.sums.cost_j)
    return Overview(
        at=utc(now),
        job_count=len(kept),
        active_count=queries.count_active(session, prefix, now - timedelta(days=1)),
        running_count=queries.count_running(session, prefix),
        ended_count=sum(job.sums.runs for job in kept),
        overdue_count=sum(number for number, _ in overdue.values()),
        running=_running(session, prefix, now),
        attention=for_attention[:MAX_ROWS],
        attention_count=len(for_attention),
        total=total_of(kept),
        this_month=total_of(queries.kept_sums(session, prefix, (now.date().replace(day=1), None))),
        savings=_extremes(session, kept),
        never_converged=[NeverConverged(job.job_id, job.sums.runs, job.sums.usage) for job in never[:MAX_ROWS]],
        never_converged_count=len(never),
    )


def total_of(jobs: Sequence[KeptSums]) -> Total:
    """Add up the savings of some jobs."""
    known = [saved for job in jobs if (saved := job.saved) is not None]
    return Total(
        Usage(*(sum(getattr(saved, name) for saved in known) for name in ("energy_j", "time_s", "cost_j"))),
        known=len(known),
        unknown=sum(job.sums.runs > 0 for job in jobs)
        - sum(job.sums.runs > 0 and job.saved is not None for job in jobs),
    )


def find_attention(
    session: Session,
    prefix: str | None,
    jobs: Sequence[KeptSums],
    overdue: Mapping[int, tuple[int, int]],
    now: datetime,
) -> list[JobForAttention]:
    """Find the jobs that need attention, the most urgent first, each with its most urgent cause.

    Args:
        session: the transaction.
        prefix: the start of the jobs' ids.
        jobs: the kept sums of all of these jobs.
        overdue: their overdue runs, as `queries.overdue_runs` finds them.
        now: the database's time.
    """
    found: dict[int, JobForAttention] = {}
    by_number = {job.number: job for job in jobs}
    for causes in (
        _without_success(session, prefix, by_number),
        _overdue(by_number, overdue),
        _by_kept_facts(jobs, now),
    ):
        for number, job in causes:
            found.setdefault(number, job)
    urgency = list(Cause)
    return sorted(found.values(), key=lambda job: (urgency.index(job.cause), -job.number, job.job_id))


def _without_success(
    session: Session, prefix: str | None, jobs: Mapping[int, KeptSums]
) -> Iterator[tuple[int, JobForAttention]]:
    found = queries.without_success(session, prefix, len(jobs))
    rows = [row for row in found if row.job in jobs]  # without those registered after the jobs were read
    stuck = _stuck(session, [jobs[row.job] for row in rows if row.failures][:MAX_CHECKED_JOBS])
    crashing = [row for row in rows if row.crashes >= IN_A_ROW and row.job not in stuck]
    errors = queries.outcomes(session, [(row.job, row.last_crash) for row in crashing[:MAX_ROWS]])
    for row in rows:
        job_id = jobs[row.job].job_id
        if row.job in stuck:
            last = row.last_failure
            yield row.job, JobForAttention(job_id, Cause.STUCK, stuck[row.job], row.failures, last)
        elif row.crashes >= IN_A_ROW:
            text = crash_loop(row.crashes, errors.get(row.job, ""))
            yield row.job, JobForAttention(job_id, Cause.CRASHES, text, row.crashes, row.last_crash)
        elif row.failures >= IN_A_ROW:
            text = failing(row.failures)
            yield row.job, JobForAttention(job_id, Cause.FAILURES, text, row.failures, row.last_failure)


def _overdue(
    jobs: Mapping[int, KeptSums], overdue: Mapping[int, tuple[int, int]]
) -> Iterator[tuple[int, JobForAttention]]:
    for number, (runs, first) in overdue.items():
        if number in jobs:
            yield number, JobForAttention(jobs[number].job_id, Cause.OVERDUE, number=runs, trial=first)


def _by_kept_facts(jobs: Sequence[KeptSums], now: datetime) -> Iterator[tuple[int, JobForAttention]]:
    for job in jobs:
        if has_just_drifted(job.launches, job.drifted_trial):
            yield job.number, JobForAttention(job.job_id, Cause.DRIFTED, trial=job.drifted_trial)
        elif job.last_launch_at is not None:
            interval = usual_interval(job.launches, job.created_at, job.last_launch_at)
            if interval is not None and is_idle(interval, job.last_launch_at, now):
                idle_s, usual_s = (now - job.last_launch_at).total_seconds(), interval.total_seconds()
                yield job.number, JobForAttention(job.job_id, Cause.IDLE, idle_s=idle_s, usual_s=usual_s)


_Stage = tuple[Stage, str]
_stages: LRUCache[tuple[str, datetime, int], _Stage] = LRUCache(maxsize=10_000)
"""The stages of jobs by id, creation and revision. A stage depends on nothing else, so it holds on every replica."""
_stages_lock = Lock()


def _stuck(session: Session, jobs: Sequence[KeptSums]) -> dict[int, str]:
    """Find the jobs that are stuck, each with a message."""
    stages: dict[int, _Stage] = {}
    with _stages_lock:
        for job in jobs:
            if (known := _stages.get((job.job_id, job.created_at, job.revision))) is not None:
                stages[job.number] = known
    loaded = queries.jobs_numbered(session, [job.number for job in jobs if job.number not in stages])
    for row in loaded:
        stages[row.id] = stage_of(row, states.read_state(session, row))
        with _stages_lock:
            _stages[row.job_id, row.created_at, row.revision] = stages[row.id]
    return {number: message for number, (stage, message) in stages.items() if stage is Stage.STUCK}


def _running(session: Session, prefix: str | None, now: datetime) -> list[RunningTrial]:
    found = queries.running_trials(session, prefix, MAX_ROWS)
    job_of = {job.id: job for job in queries.jobs_numbered(session, {trial.job for _, trial in found})}
    return [
        RunningTrial(
            job_id,
            trial_record(states.core_spec(job_of[trial.job]), trial),
            max(0.0, (now - trial.last_seen_at).total_seconds()),
        )
        for job_id, trial in found
        if trial.job in job_of  # else deleted since
    ]


def _extremes(session: Session, jobs: Sequence[KeptSums]) -> list[JobSavings]:
    """Return the savings of the jobs that save most, and of those that save least."""
    known = [(job.number, saved.cost_j, job.job_id) for job in jobs if (saved := job.saved) is not None]
    known.sort(key=lambda job: (-job[1], job[2]))
    shown = known if len(known) <= MAX_ROWS else known[: MAX_ROWS // 2] + known[-(MAX_ROWS // 2) :]
    rows = {job.id: job for job in queries.jobs_numbered(session, [number for number, *_ in shown])}
    totals_of = states.load_totals(session, list(rows))
    return [_savings(rows[number], totals_of.get(number, {})) for number, *_ in shown if number in rows]


def _savings(job: Job, explorations: Mapping[int, list[Totals]]) -> JobSavings:
    totals = [group for of_exploration in explorations.values() for group in of_exploration]
    return job_savings(job, core_savings.savings(states.core_spec(job), totals))
