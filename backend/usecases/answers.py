"""The answers to the calls of a run, built from its rows. Nothing here reads or changes data.

The calls live in `runs`. The answers to the read calls are in `records`.
"""

from lightning_bso.wire import AskAnswer, ReportAnswer

from ..core.cost import run_cost
from ..core.state import Report as CoreReport
from ..core.state import Spec, TrialStatus, Verdict, VerdictCode
from ..database import states, store
from ..database.models import Job, Report, Trial
from ..errors import ReportConflict


def to_ask(
    job: Job,
    trial: Trial,
    last: Report | None,
    lease_s: float,
    ruled_out: str | None = None,
    held_by: str | None = None,
) -> AskAnswer:
    """Return the answer to a run that asks.

    Args:
        job: the job.
        trial: the run's trial.
        last: its last report; None before the first.
        lease_s: seconds until the lease of a run expires.
        ruled_out: why errors have ruled out the trial's batch size; None: they have not.
        held_by: the process that holds the trial, if it is another than the caller's.
    """
    spec = states.core_spec(job)
    # A run knows its totals as of its last report. A calibration run has its verdict as of an earlier one.
    energy_j, time_s, epochs = (trial.energy_j, trial.time_s, trial.epochs)
    if last is not None:
        energy_j, time_s, epochs = last.energy_j, last.time_s, last.epoch
    outcome = trial.outcome
    if ruled_out is not None:
        outcome = f"{outcome}. Batch size {trial.batch_size} is ruled out until the job is reset: it {ruled_out}"
    return AskAnswer(
        job_id=job.job_id,
        batch_size=trial.batch_size,
        trial_number=trial.number,
        type=trial.type,
        reason=trial.reason,
        status=trial.status,
        outcome=None if trial.outcome_code == store.LOST else outcome,
        lease_s=lease_s,
        time=time_s,
        energy=energy_j,
        current_epoch=epochs,
        report_number=number_of(last),
        converged=has_converged(trial),
        energy_after=max(0.0, trial.energy_after_j + trial.energy_j - energy_j),
        time_after=max(0.0, trial.time_after_s + trial.time_s - time_s),
        probe_wanted=spec.policy == "gp-ucb" and trial.exploration not in states.load_probes(job),
        max_device_batch_size=job.max_device_batch_size,
        held_by=held_by,
    )


def to_report(spec: Spec, report: CoreReport, verdict: Verdict) -> ReportAnswer:
    """Return the answer to a report, with the verdict on it."""
    return ReportAnswer(
        stop_train=verdict.stop,
        converged=verdict.converged,
        message=verdict.reason,
        reason=verdict.code,
        cost=run_cost(spec, report.energy_j, report.time_s),
    )


def to_report_of_ended(spec: Spec, trial: Trial) -> ReportAnswer:
    """Return the answer to a report on a trial that has ended for good."""
    return ReportAnswer(
        stop_train=True,
        converged=bool(has_converged(trial)),
        message=f"trial {trial.number} has already ended: {trial.outcome}",
        reason=trial.outcome_code or "",
        cost=run_cost(spec, trial.energy_j, trial.time_s),
    )


def to_repeated_report(spec: Spec, report: CoreReport, stored: Report) -> ReportAnswer:
    """Return the verdict that a stored report got.

    Raises:
        ReportConflict: the report that is sent again has other content.
    """
    out_of_memory = stored.code == VerdictCode.OUT_OF_MEMORY
    if CoreReport(stored.metric, stored.energy_j, stored.time_s, stored.epoch, out_of_memory) != report:
        raise ReportConflict(
            f"report {stored.number} already exists with different content; give a new report the next number"
        )
    code = VerdictCode(stored.code)
    return to_report(spec, report, Verdict(code, stored.message))


def has_converged(trial: Trial) -> bool | None:
    """Whether a run has reached its target, be it one that is still to be learnt from it; None: it has no verdict."""
    if trial.outcome_code == VerdictCode.PRICED_OUT:
        return False
    return True if trial.status == TrialStatus.CALIBRATED else trial.converged


def number_of(report: Report | None) -> int:
    """Return the number of a report; 0: there is none yet."""
    return 0 if report is None else report.number
