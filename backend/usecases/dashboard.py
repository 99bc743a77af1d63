"""What the admin page shows: how all jobs stand, the history of one, the reports of a trial.

What scripts read is in `queries.py`, what figures are made of it in `admin/plots.py`.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from backend.core import policies, savings
from backend.core.cost import run_cost
from backend.core.state import Spec, Stage, TrialStatus
from backend.core.state import Trial as CoreTrial
from backend.core.summary import SizeSummary, Totals, summarize
from backend.database import states, store
from backend.database.models import Job
from backend.database.store import JobFilter
from backend.database.transactions import Session, read_only
from backend.usecases.audit import Actor
from backend.usecases.reading import known_job, known_trial
from backend.usecases.records import job_belief, job_savings, job_summary, trial_count, trial_record, utc
from lightning_bso.wire import JobBelief, JobSavings, JobSummary, RegisteredJobSpec, TrialRecord, Usage

MOST_PLOTTED = 500
"""Trials of a job that are plotted, the last to end; what came before is added up."""
MOST_LISTED = 20
"""Lines of each list of the overview, and running trials of a job's page."""
FAILURES_FOR_A_PERSON = 3
"""So many runs of a job in a row without a success are for a person to look at."""
MOST_LOOKED_AT = 200
"""Jobs whose last runs have failed, of which it is looked whether they are stuck; those with most failures."""


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """A trial that has ended, with what the decisions do not look at."""

    trial: CoreTrial
    exploration: int
    outcome_code: str


@dataclass(frozen=True, slots=True)
class History:
    """What a job's page shows, all of one moment."""

    job: JobSummary
    spec: Spec
    exploration: int
    """The current one."""
    revision: int
    """Another one says that something has changed."""
    total: int
    """Trials, those from before a reset included; and"""
    running_in_all: int
    """of these, those that run."""
    running: list[TrialRecord]
    """Those unheard of for longest first, at most so many as a list shows."""
    ended: list[EndedTrial]
    """The trials that ended last, in the order of their ends."""
    before: list[Totals]
    """All that ended before these."""
    summaries: list[SizeSummary]
    """Of every batch size, over all trials since the last reset."""
    savings: JobSavings
    belief: JobBelief


@read_only
def revision(session: Session, job_id: str, by: Actor) -> int:
    """A number that is another one as soon as anything about a job has changed.

    Raises:
        UnknownJob: there is no such job.
    """
    return known_job(session, job_id, by).revision


@read_only
def spec(session: Session, job_id: str, by: Actor) -> RegisteredJobSpec:
    """A job's spec as it was registered.

    Raises:
        UnknownJob: there is no such job.
    """
    return states.spec_of(known_job(session, job_id, by))


@read_only
def history(session: Session, job_id: str, by: Actor) -> History:
    """What a job's page shows; of a long history the last trials, and the sums of the others.

    Raises:
        UnknownJob: there is no such job.
    """
    job = known_job(session, job_id, by)
    spec, state = states.core_spec(job), states.load_state(session, job)
    ended = [EndedTrial(*row) for row in states.load_last_ended(session, job, MOST_PLOTTED)]
    explorations = states.load_totals(session, [job.id]).get(job.id, {})
    before: dict[int, list[Totals]] = {}
    if len(ended) == MOST_PLOTTED:
        before = states.load_totals(session, [job.id], before=ended[0].trial).get(job.id, {})
    current = explorations.get(job.exploration, [])
    ever = [one for totals in explorations.values() for one in totals]
    return History(
        job=job_summary(job, state, current),
        spec=spec,
        exploration=job.exploration,
        revision=job.revision,
        total=trial_count(ever),
        running_in_all=trial_count(ever, TrialStatus.DISPATCHED),
        running=[
            trial_record(spec, trial) for _, trial in store.running_trials(session, None, MOST_LISTED, of_job=job)
        ],
        ended=ended,
        before=[one for totals in before.values() for one in totals],
        summaries=summarize(spec, current, policies.ruled_out(state)),
        savings=job_savings(job, savings.savings(spec, ever)),
        belief=job_belief(job, state, current),
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


@read_only
def trial(session: Session, job_id: str, number: int, by: Actor) -> TrialRecord:
    """One trial.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
    """
    job = known_job(session, job_id, by)
    return trial_record(states.core_spec(job), known_trial(session, job, number))


def can_be_ended(trial: TrialRecord) -> bool:
    """Whether a trial's run may still report, or come back to it: it has no verdict, and no person has ended it."""
    return trial.status != TrialStatus.SUCCEEDED and trial.outcome_code != store.STOPPED


@read_only
def list_reports(
    session: Session, job_id: str, number: int, offset: int, limit: int, by: Actor
) -> tuple[int, list[ReportRecord]]:
    """How many reports a trial has, and a part of them in their order.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
    """
    job = known_job(session, job_id, by)
    spec = states.core_spec(job)
    total, reports = store.reports_of(session, known_trial(session, job, number), offset, limit)
    return total, [
        ReportRecord(
            one.number,
            one.epoch,
            one.metric,
            one.energy_j,
            one.time_s,
            run_cost(spec, one.energy_j, one.time_s),
            one.message,
            utc(one.received_at),
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
    """A job that gives out no batch size any more, or whose last runs have all failed."""

    job_id: str
    failures: int
    """Since the last run that converged, those not counted that a person or their caller has ended."""
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
    overdue: int
    """Running trials that have been silent for longer than their lease: most likely lost."""
    running: list[RunningTrial]
    """Those unheard of for longest first."""
    failing: list[FailingJob]
    """For a person to look at: stuck jobs first, then by failures."""
    failing_in_all: int
    """As far as jobs were looked at: `MOST_LOOKED_AT`."""
    saved: Usage
    """Against always the default, by all jobs together of which that is known."""
    saving_jobs: int
    """How many these are; and"""
    unknown_jobs: int
    """of how many, with runs that have ended, it is not known."""
    savings: list[JobSavings]
    """Those that have saved most, in cost."""


@read_only
def overview(session: Session, by: Actor, lease_s: float) -> Overview:
    """How all jobs stand together."""
    prefix, now = by.job_id_prefix, store.now(session)
    total, jobs = store.page_of_jobs(session, JobFilter(prefix=prefix), 0, 1_000_000)
    by_number = {job.id: job for job in jobs}
    all_totals = states.load_totals(session, None if prefix is None else list(by_number))
    sums: dict[str, int] = dict.fromkeys(TrialStatus, 0)
    known, unknown = [], 0
    for number, explorations in all_totals.items():
        ever = [one for totals in explorations.values() for one in totals]
        for one in ever:
            sums[one.status] += one.trials
        if number not in by_number:  # it is new
            continue
        found = savings.savings(states.core_spec(by_number[number]), ever)
        if found.against_default is not None:
            known.append((by_number[number], found, found.against_default))
        else:
            unknown += found.launches > 0
    known.sort(key=lambda one: -one[2].cost_j)
    running = [
        RunningTrial(job_id, trial_record(states.core_spec(by_number[run.job]), run), _seconds(now - run.last_seen_at))
        for job_id, run in store.running_trials(session, prefix, MOST_LISTED)
        if run.job in by_number
    ]
    failing = _failing(session, prefix, by_number)
    return Overview(
        jobs=total,
        active_today=store.count_active(session, prefix, now - timedelta(days=1)),
        trials=sums,
        overdue=store.count_silent(session, prefix, now - timedelta(seconds=lease_s)),
        running=running,
        failing=failing[:MOST_LISTED],
        failing_in_all=len(failing),
        saved=Usage(
            energy=sum(one.energy_j for _, _, one in known),
            time=sum(one.time_s for _, _, one in known),
            cost=sum(one.cost_j for _, _, one in known),
        ),
        saving_jobs=len(known),
        unknown_jobs=unknown,
        savings=[job_savings(job, found) for job, found, _ in known[:MOST_LISTED]],
    )


def _failing(session: Session, prefix: str | None, by_number: dict[int, Job]) -> list[FailingJob]:
    """The jobs for a person to look at, the most urgent first."""
    found = []
    for number, failures in store.failing_jobs(session, prefix, MOST_LOOKED_AT):
        job = by_number.get(number)
        if job is None:  # it is new
            continue
        stage, message = policies.stage(states.load_state(session, job))
        if stage is Stage.STUCK or failures >= FAILURES_FOR_A_PERSON:
            found.append(FailingJob(job.job_id, failures, stage, message))
    return sorted(found, key=lambda one: (one.stage != Stage.STUCK, -one.failures))


def _seconds(duration: timedelta) -> float:
    return max(0.0, duration.total_seconds())
