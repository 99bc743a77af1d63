"""Turn rows and the core's results into the answers of the protocol (`lightning_bso.wire`).

Nothing here queries the database. `reading` and `dashboard` load the rows.
"""

from collections.abc import Sequence
from datetime import UTC, datetime

from lightning_bso.wire import (
    AuditRecord,
    BatchSizeSummary,
    JobBelief,
    JobSavings,
    JobSummary,
    LearntTarget,
    SizeBelief,
    TrialRecord,
    Usage,
)

from ..core import calibration, policies
from ..core.cost import run_cost
from ..core.run_status import run_status
from ..core.savings import Savings
from ..core.savings import Usage as CoreUsage
from ..core.state import JobState, NothingConverges, Spec, Stage, TrialStatus
from ..core.summary import SizeSummary, Totals, best, summarize
from ..database import states
from ..database.models import AuditEntry, Job, Trial


def job_summary(job: Job, state: JobState, totals: Sequence[Totals], attention: str | None) -> JobSummary:
    """Return the current state of a job.

    Args:
        job: the job.
        state: the state that its decisions depend on.
        totals: totals of its trials since the last reset.
        attention: why the job needs attention, if it does.
    """
    stage, message = stage_of(job, state)
    summaries = summarize(state.spec, totals, policies.ruled_out(state))
    of_job = best(state, summaries)
    learnt = states.load_targets(job).get(job.exploration)
    return JobSummary(
        spec=states.spec_of(job),
        learnt_target=learnt and LearntTarget(target_metric=learnt.target_metric, trials=list(learnt.trials)),
        paused=job.paused,
        stage=stage,
        message=message,
        attention=attention,
        created_at=utc(job.created_at),
        trials=trial_count(totals),
        running=trial_count(totals, TrialStatus.DISPATCHED),
        best_batch_size=of_job.lowest_mean,
        recommended_batch_size=of_job.recommended,
        best=of_job.text,
        max_device_batch_size=job.max_device_batch_size,
        batch_sizes=[_size_summary(summary) for summary in summaries],
    )


def stage_of(job: Job, state: JobState) -> tuple[Stage, str]:
    """Return the stage of a job, and a description of it. A job that learns its target is never stuck."""
    if state.out_of_reach:
        failures = f"the last {calibration.MAX_FAILURES} runs did not converge"
        return Stage.CALIBRATION, f"{failures}, so the next run begins to learn the target again"
    stage, message = policies.stage(state)
    if stage is Stage.STUCK and states.core_spec(job).target_metric is None:
        return Stage.CALIBRATION, "no batch size is left to try, so the next run begins to learn the target again"
    return stage, message


def job_belief(job: Job, state: JobState, totals: Sequence[Totals]) -> JobBelief:
    """Return what a job's policy expects of each batch size, and the batch size that a run would get now.

    Args:
        job: the job.
        state: the state that its decisions depend on.
        totals: totals of its trials since the last reset.
    """
    summaries = {summary.batch_size: summary for summary in summarize(state.spec, totals, policies.ruled_out(state))}
    try:
        rng = states.load_rng(job)  # a copy, so that the next run draws the same numbers again
        if job.paused:
            choice = policies.choose_while_paused(state.spec)
        elif state.out_of_reach:
            choice = calibration.choose(states.core_spec(job))
        else:
            choice = policies.choose(state, rng)
        next_batch_size, next_reason, cost_bound = choice.batch_size, choice.reason, policies.bound(state, choice)
    except NothingConverges as error:
        next_batch_size, next_reason, cost_bound = None, str(error), None
        if states.core_spec(job).target_metric is None:
            choice = calibration.choose(states.core_spec(job))
            next_batch_size, next_reason = choice.batch_size, choice.reason
    return JobBelief(
        job_id=job.job_id,
        policy=job.policy,
        batch_sizes=[
            SizeBelief(
                batch_size=expectation.batch_size,
                expected_cost=expectation.expected_j,
                standard_deviation=expectation.sd_j,
                runs=summaries[expectation.batch_size].runs,
                ruled_out=summaries[expectation.batch_size].ruled_out,
            )
            for expectation in policies.expectations(state)
        ],
        next_batch_size=next_batch_size,
        next_reason=next_reason,
        cost_bound=cost_bound,
    )


def job_savings(job: Job, savings: Savings) -> JobSavings:
    """Return what a job has spent and saved."""
    return JobSavings(
        job_id=job.job_id,
        launches=savings.launches,
        recurrences=savings.recurrences,
        spent=usage_record(savings.spent),
        default_batch_size=states.core_spec(job).default_batch_size,
        against_default=savings.against_default and usage_record(savings.against_default),
        best_batch_size=savings.best_batch_size,
        against_best=savings.against_best and usage_record(savings.against_best),
    )


def usage_record(usage: CoreUsage) -> Usage:
    """Return energy, time and cost as the API shows them."""
    return Usage(energy=usage.energy_j, time=usage.time_s, cost=usage.cost_j)


def _size_summary(summary: SizeSummary) -> BatchSizeSummary:
    return BatchSizeSummary(
        batch_size=summary.batch_size,
        runs=summary.runs,
        converged=summary.converged,
        priced_out=summary.priced_out,
        lost=summary.lost,
        mean_cost=summary.mean_cost_j,
        mean_energy=summary.mean_energy_j,
        mean_time=summary.mean_time_s,
        mean_epochs=summary.mean_epochs,
        mean_best_metric=summary.mean_best_metric,
        ruled_out=summary.ruled_out,
    )


def trial_record(spec: Spec, trial: Trial) -> TrialRecord:
    """Return a trial as the API sends it."""
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
            "run_status": run_status(trial.outcome_code),
            "converged": trial.converged,
            "energy": trial.energy_j,
            "time": trial.time_s,
            "current_epoch": trial.epochs,
            "cost": run_cost(spec, trial.energy_j, trial.time_s),
            "best_metric": trial.best_metric,
            "energy_after": trial.energy_after_j,
            "time_after": trial.time_after_s,
            "energy_source": trial.energy_source,
            "accumulate_grad_batches": trial.accumulate_grad_batches,
            "host": trial.host,
            "started_at": utc(trial.started_at),
            "last_seen_at": utc(trial.last_seen_at),
            "ended_at": trial.ended_at and utc(trial.ended_at),
        }
    )


def utc(stored: datetime) -> datetime:
    """Add the time zone to a stored time. Stored times are in UTC."""
    return stored.replace(tzinfo=UTC)


def trial_count(totals: Sequence[Totals], status: TrialStatus | None = None) -> int:
    """Count the trials in some totals, those of one status or all."""
    return sum(row.trials for row in totals if status in (None, row.status))


def audit_record(entry: AuditEntry) -> AuditRecord:
    """Return an entry of the audit log as the API sends it."""
    return AuditRecord(
        at=utc(entry.at),
        actor=entry.actor,
        address=entry.address,
        action=entry.action,
        job_id=entry.job_id,
        detail=entry.detail,
    )
