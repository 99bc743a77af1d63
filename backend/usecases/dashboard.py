"""Data for the admin page: the history of one job, the reports of a trial.

Nothing here changes data. The state of all jobs is in `overview`, the long lists are in `lists`, the read calls of the
API in `reading`.
`backend.web.admin.plots` turns the data into figures.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lightning_bso.wire import JobBelief, JobSavings, JobSummary, RegisteredJobSpec, TrialRecord

from ..core import policies, savings
from ..core.cost import run_cost
from ..core.state import Report, Spec, TrialStatus
from ..core.state import Trial as CoreTrial
from ..core.summary import SizeSummary, Totals, summarize
from ..database import queries, states, store
from ..database.models import Job
from ..database.transactions import Session, read_only
from .audit import Actor
from .reading import attention, get_job, get_trial
from .records import job_belief, job_savings, job_summary, trial_count, trial_record, utc

MAX_PLOTTED_TRIALS = 500
"""Figures show this many of a job's trials, the last to end. Earlier trials are added up."""
LATEST_CURVES, MAX_CURVES = 5, 8
"""Trials whose metric a job's page shows by itself, and at most."""
MAX_ROWS = 20
"""Running trials on a job's page."""


@dataclass(frozen=True, slots=True)
class EndedTrial:
    """An ended trial, with facts that decisions do not need."""

    trial: CoreTrial
    exploration: int
    outcome_code: str
    ended_at: datetime | None


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


@read_only
def metric_curves(session: Session, job_id: str, numbers: Sequence[int], by: Actor) -> dict[int, list[Report]]:
    """Return the reports of some trials of a job, by their numbers.

    Args:
        session: the transaction.
        job_id: the job.
        numbers: the trials; those that the job does not have are left out. Empty: the latest `LATEST_CURVES`.
        by: who asks.

    Raises:
        UnknownJob: there is no such job.
    """
    job = get_job(session, job_id, by)
    trials = queries.trials_with_numbers(session, job, numbers, LATEST_CURVES)
    return {trial.number: states.load_curve(session, trial) for trial in trials}


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
