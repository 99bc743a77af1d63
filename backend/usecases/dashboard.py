"""Data for the admin page: the overview of all jobs, the history of one job, the reports of a trial.

Nothing here changes data. The long lists are in `lists`, the read calls of the API in `reading`.
`backend.web.admin.plots` turns the data into figures.
"""

from dataclasses import dataclass
from datetime import datetime, timedelta

from lightning_bso.wire import JobBelief, JobSavings, JobSummary, RegisteredJobSpec, TrialRecord, Usage

from ..core import policies, savings
from ..core.cost import run_cost
from ..core.state import Report, Spec, Stage, TrialStatus
from ..core.state import Trial as CoreTrial
from ..core.summary import SizeSummary, Totals, summarize
from ..database import queries, states, store
from ..database.models import Job
from ..database.queries import JobFilter
from ..database.transactions import Session, read_only
from .audit import Actor
from .reading import IN_A_ROW_FOR_ATTENTION, attention, crash_loop, get_job, get_trial
from .records import job_belief, job_savings, job_summary, stage_of, trial_count, trial_record, utc

MAX_PLOTTED_TRIALS = 500
"""Figures show this many of a job's trials, the last to end. Earlier trials are added up."""
MAX_ROWS = 20
"""Rows of each table of the overview, and running trials on a job's page."""
MAX_CHECKED_JOBS = 200
"""The overview checks this many jobs whose last runs failed, those with the most failures. Each check loads a job."""


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """An ended trial, with facts that decisions do not need."""

    trial: CoreTrial
    exploration: int
    outcome_code: str


@dataclass(frozen=True, slots=True)
class History:
    """Data for a job's page, read in one transaction."""

    job: JobSummary
    spec: Spec
    exploration: int
    """The current exploration."""
    revision: int
    """Raised by every change of the job."""
    trial_count: int
    """All trials, trials before a reset included."""
    running_count: int
    """All running trials."""
    running: list[TrialRecord]
    """Running trials, longest unseen first, at most `MAX_ROWS`."""
    ended: list[EndedTrial]
    """The last trials to end, in the order of their ends, at most `MAX_PLOTTED_TRIALS`."""
    earlier: list[Totals]
    """Sums over the trials that ended before those."""
    summaries: list[SizeSummary]
    """Figures of every batch size, since the last reset."""
    savings: JobSavings
    belief: JobBelief
    curves: dict[int, list[Report]]
    """The reports of each run that the current target was learnt from, or so far is. Empty if the spec has a target."""


@read_only
def revision(session: Session, job_id: str, by: Actor) -> int:
    """Return a number that every change of the job raises.

    Raises:
        UnknownJob: there is no such job.
    """
    return get_job(session, job_id, by).revision


@read_only
def spec(session: Session, job_id: str, by: Actor) -> RegisteredJobSpec:
    """Return a job's spec as registered.

    Raises:
        UnknownJob: there is no such job.
    """
    return states.spec_of(get_job(session, job_id, by))


@read_only
def history(session: Session, job_id: str, by: Actor) -> History:
    """Return the data for a job's page. Of a long history it has the last trials, and sums over the others.

    Raises:
        UnknownJob: there is no such job.
    """
    job = get_job(session, job_id, by)
    spec, state = states.core_spec(job), states.read_state(session, job)
    ended = [EndedTrial(*row) for row in states.load_last_ended(session, job, MAX_PLOTTED_TRIALS)]
    totals_of = states.load_totals(session, [job.id]).get(job.id, {})
    earlier_totals_of: dict[int, list[Totals]] = {}
    if len(ended) == MAX_PLOTTED_TRIALS:
        earlier_totals_of = states.load_totals(session, [job.id], before=ended[0].trial).get(job.id, {})
    current = totals_of.get(job.exploration, [])
    all_totals = _flatten(totals_of)
    running = queries.running_trials(session, None, MAX_ROWS, of_job=job)
    return History(
        job=job_summary(job, state, current, attention(session, job)),
        spec=spec,
        exploration=job.exploration,
        revision=job.revision,
        trial_count=trial_count(all_totals),
        running_count=trial_count(all_totals, TrialStatus.DISPATCHED),
        running=[trial_record(spec, trial) for _, trial in running],
        ended=ended,
        earlier=_flatten(earlier_totals_of),
        summaries=summarize(spec, current, policies.ruled_out(state)),
        savings=job_savings(job, savings.savings(spec, all_totals)),
        belief=job_belief(job, state, current),
        curves=_calibration_curves(session, job),
    )


@dataclass(frozen=True, slots=True)
class ReportRecord:
    """A report and the verdict on it."""

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
    """Return one trial.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
    """
    job = get_job(session, job_id, by)
    return trial_record(states.core_spec(job), get_trial(session, job, number))


@read_only
def target_metric(session: Session, job_id: str, number: int, by: Actor) -> float | None:
    """Return the target of a trial; None: it is not learnt yet.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
    """
    job = get_job(session, job_id, by)
    return states.spec_at(job, get_trial(session, job, number).exploration).target_metric


def can_be_ended(trial: TrialRecord) -> bool:
    """Whether a trial's run may still report or resume: the trial has no verdict, and no user has ended it."""
    has_result = trial.status in (TrialStatus.SUCCEEDED, TrialStatus.CALIBRATED)
    return not has_result and trial.outcome_code != store.STOPPED


@read_only
def list_reports(
    session: Session, job_id: str, number: int, offset: int, limit: int, by: Actor
) -> tuple[int, list[ReportRecord]]:
    """Return the number of a trial's reports, and a page of them in their order.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
    """
    job = get_job(session, job_id, by)
    spec = states.core_spec(job)
    total, reports = queries.page_of_reports(session, get_trial(session, job, number), offset, limit)
    return total, [
        ReportRecord(
            report.number,
            report.epoch,
            report.metric,
            report.energy_j,
            report.time_s,
            run_cost(spec, report.energy_j, report.time_s),
            report.message,
            utc(report.received_at),
        )
        for report in reports
    ]


@dataclass(frozen=True, slots=True)
class RunningTrial:
    """A running trial."""

    job_id: str
    trial: TrialRecord
    unseen_s: float
    """Time since it was last seen."""


@dataclass(frozen=True, slots=True)
class FailingJob:
    """A job that needs attention: it is stuck, or its last runs all failed or ended without a verdict."""

    job_id: str
    failures: int
    """Failed runs since the last run that converged. Runs that a user or their caller ended do not count."""
    crashes: int
    """The last runs, if all of them ended without a verdict and there are enough of them; else 0."""
    stage: str
    message: str
    """How the last of these runs ended, else the stage in words."""


@dataclass(frozen=True, slots=True)
class Overview:
    """The state of all jobs."""

    job_count: int
    active_count: int
    """Jobs that were seen in the last 24 hours."""
    trials: dict[str, int]
    """Number of trials by status."""
    overdue_count: int
    """Running trials that were not seen for longer than their lease. Most likely they are lost."""
    running: list[RunningTrial]
    """Running trials, longest unseen first, at most `MAX_ROWS`."""
    failing: list[FailingJob]
    """Jobs that need attention, stuck jobs first, then by failures and runs without a verdict, at most `MAX_ROWS`."""
    failing_count: int
    """Jobs that need attention, among the `MAX_CHECKED_JOBS` with the most failures."""
    saved: Usage
    """Savings compared with always using the default batch size, over all jobs with known savings."""
    known_savings_count: int
    """Jobs with known savings."""
    unknown_savings_count: int
    """Jobs with ended runs but unknown savings: their default batch size has never converged."""
    savings: list[JobSavings]
    """The jobs with the highest savings of cost, at most `MAX_ROWS`."""


@read_only
def overview(session: Session, by: Actor, lease_s: float) -> Overview:
    """Return the state of all jobs."""
    prefix, now = by.job_id_prefix, store.now(session)
    job_count, jobs = queries.page_of_jobs(session, JobFilter(prefix=prefix), 0, 1_000_000)
    job_of = {job.id: job for job in jobs}
    totals_of = states.load_totals(session, None if prefix is None else list(job_of))
    trials: dict[str, int] = dict.fromkeys(TrialStatus, 0)
    known, unknown_count = [], 0
    for number, explorations in totals_of.items():
        totals = _flatten(explorations)
        for group in totals:
            trials[group.status] += group.trials
        if number not in job_of:  # registered after the jobs were read
            continue
        job = job_of[number]
        job_saved = savings.savings(states.core_spec(job), totals)
        if job_saved.against_default is not None:
            known.append((job, job_saved, job_saved.against_default))
        else:
            unknown_count += job_saved.launches > 0
    known.sort(key=lambda entry: (-entry[2].cost_j, entry[0].id))
    running = [
        RunningTrial(
            job_id, trial_record(states.core_spec(job_of[trial.job]), trial), _seconds(now - trial.last_seen_at)
        )
        for job_id, trial in queries.running_trials(session, prefix, MAX_ROWS)
        if trial.job in job_of
    ]
    failing = _failing_jobs(session, prefix, job_of)
    return Overview(
        job_count=job_count,
        active_count=queries.count_active(session, prefix, now - timedelta(days=1)),
        trials=trials,
        overdue_count=queries.count_overdue(session, prefix, now - timedelta(seconds=lease_s)),
        running=running,
        failing=failing[:MAX_ROWS],
        failing_count=len(failing),
        saved=Usage(
            energy=sum(usage.energy_j for _, _, usage in known),
            time=sum(usage.time_s for _, _, usage in known),
            cost=sum(usage.cost_j for _, _, usage in known),
        ),
        known_savings_count=len(known),
        unknown_savings_count=unknown_count,
        savings=[job_savings(job, job_saved) for job, job_saved, _ in known[:MAX_ROWS]],
    )


def _failing_jobs(session: Session, prefix: str | None, job_of: dict[int, Job]) -> list[FailingJob]:
    """Find the jobs that need attention, stuck jobs first."""
    failing = []
    crashing = {
        number: (crashes, error)
        for number, crashes, error in queries.crashing_jobs(session, prefix, IN_A_ROW_FOR_ATTENTION, MAX_CHECKED_JOBS)
    }
    failures_of = dict.fromkeys(crashing, 0) | dict(queries.failing_jobs(session, prefix, MAX_CHECKED_JOBS))
    for number, failures in failures_of.items():
        job = job_of.get(number)
        if job is None:  # registered after the jobs were read
            continue
        stage, message = stage_of(job, states.read_state(session, job))
        crashes, error = crashing.get(number, (0, ""))
        if crashes and stage is not Stage.STUCK:
            message = crash_loop(crashes, error)
        if stage is Stage.STUCK or crashes or failures >= IN_A_ROW_FOR_ATTENTION:
            failing.append(FailingJob(job.job_id, failures, crashes, stage, message))
    return sorted(failing, key=lambda job: (job.stage != Stage.STUCK, -max(job.failures, job.crashes)))


def _calibration_curves(session: Session, job: Job) -> dict[int, list[Report]]:
    if states.core_spec(job).target_metric is not None:
        return {}
    learnt = states.load_targets(job).get(job.exploration)
    if learnt is None:
        trials = store.calibrated_trials(session, job, job.exploration)
    else:
        trials = [get_trial(session, job, number) for number in learnt.trials]
    return {trial.number: states.load_curve(session, trial) for trial in trials}


def _flatten(explorations: dict[int, list[Totals]]) -> list[Totals]:
    return [group for totals in explorations.values() for group in totals]


def _seconds(duration: timedelta) -> float:
    return max(0.0, duration.total_seconds())
