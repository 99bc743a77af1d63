"""The calls of a run: it asks for a batch size, reports, and ends. One function, one transaction.

Each locks the job first, loads plain data, calls the core, writes and commits. No decision rule lives here
(`backend.core`), no SQL (`backend.database.store`) and no HTTP (`backend.web.api`). Next: `answers` builds the answers.
What changes a job as a whole lives in `jobs`, the read calls in `reading`.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import datetime

from lightning_bso.quantities import duration
from lightning_bso.wire import (
    MAX_INT,
    MAX_STILL_S,
    AfterRequest,
    AskAnswer,
    EndAnswer,
    HeartbeatAnswer,
    HeartbeatRequest,
    ProbeRequest,
    ReportAnswer,
    ReportRequest,
    TrialCall,
    TrialRequest,
)

from ..core import breakdowns, calibration, policies
from ..core.cost import run_cost
from ..core.state import Choice, JobState, NothingConverges, TrialStatus, Verdict, VerdictCode
from ..core.state import Report as CoreReport
from ..database import rows, states, store
from ..database.models import Job, StoredBelief, Trial
from ..database.transactions import Connection, transaction
from ..errors import (
    InvalidField,
    JobStuck,
    ReportConflict,
    UnknownTrial,
)
from . import answers, audit
from .audit import Action, Actor


@transaction
def ask(
    connection: Connection,
    job_id: str,
    run_id: str | None,
    *,
    by: Actor,
    lease_s: float,
    host: str | None = None,
    resumes: bool = True,
    process: str | None = None,
    takes_over: str | None = None,
    stops: bool = True,
) -> AskAnswer:
    """Dispatch a batch size to a run: create a trial, or return the trial that this `run_id` already has.

    A run can ask again after its caller ended its trial (outcome code `ended`). The trial then counts as lost, and the
    run's next report revives it. A trial that ended without a verdict at the end of its training (outcome code `left`)
    is revived only if the caller `resumes` it. For any other caller the trial may belong to an earlier training.
    A trial whose batch size is ruled out after errors is not revived, so that the run gets another batch size.

    A trial that has not ended and that another process holds stays as it is. The answer names that process, and the
    caller finds out whether it still runs. If not, the caller asks again and `takes_over` the trial. Of several
    processes that try this at once, one succeeds.

    Args:
        connection: the transaction.
        job_id: the job.
        run_id: the caller's name for the run; None: every call creates a trial.
        by: the caller.
        lease_s: seconds until the lease of a run expires.
        host: machine of the run, shown on the admin page.
        resumes: whether the run may continue a trial with outcome code `left`.
        process: the process of the run. None: unknown, so it gets the run's trial, whoever holds it.
        takes_over: the process from which `process` takes the trial over.
        stops: whether the training stops at its verdict. If not, a limit of its first epoch would save nothing.

    Raises:
        UnknownJob: there is no such job.
        JobStuck: no batch size is left to dispatch.
    """
    by.check_may_see(job_id)
    with store.locked_to_ask(connection, job_id, run_id) as (locked, last_number):
        job, at, trial, last = locked.job, locked.at, locked.trial, locked.last_report
        if (
            trial is not None
            and not _has_ended(trial)
            and takes_over != trial.process
            and _is_of_another(process, trial)
        ):
            if _renew_lease(connection, job, None, at, lease_s):
                trial = store.read_trial(connection, trial)  # its lease may just have expired
            return answers.to_ask(job, trial, last, lease_s, held_by=trial.process)
        ruled_out = None if trial is None else _reopen(connection, job, trial, resumes=resumes)
        _renew_lease(connection, job, trial, at, lease_s)
        if trial is not None:
            trial.process = process
            trial.epoch_limit_j = trial.epoch_limit_j if stops else None
            return answers.to_ask(job, trial, last, lease_s, ruled_out)
        choice = _choose(connection, locked, by)
        choice = choice if stops else replace(choice, epoch_limit_j=None)
        trial = store.new_trial(job, at, last_number + 1, run_id, choice, host, process)
        done = f"trial {trial.number}, batch size {trial.batch_size}"
        locked.new += [trial, audit.entry(at, by, Action.ASK, job_id, done)]
        return answers.to_ask(job, trial, None, lease_s)


@transaction
def report(connection: Connection, request: ReportRequest, *, by: Actor, lease_s: float) -> ReportAnswer:
    """Judge and store the report of a validation.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial, or the trial has another batch size.
        ReportConflict: a total or the report number is lower than before, the number was used for a different report,
            or the energy comes from another source than that of the job's other runs.
        InvalidField: the energy counter has not moved, so the run has no cost.
    """
    names_source = request.energy_source is not None
    is_first = request.report_number in (None, 1)
    with _locked_run(connection, request, by, request.batch_size, reads_sources=names_source and is_first) as run:
        locked, trial = run
        job, at, last = locked.job, locked.at, locked.last_report
        _renew_lease(connection, job, trial, at, lease_s)
        spec = states.spec_at(job, trial.exploration)
        report = CoreReport(request.metric, request.energy, request.time, request.current_epoch, request.out_of_memory)
        if last is not None and request.report_number is not None and request.report_number <= last.number:
            stored = store.find_report(connection, trial, request.report_number)
            if stored is not None:
                return answers.to_repeated_report(spec, report, stored)
        if _has_ended(trial):
            return answers.to_report_of_ended(spec, trial)
        last_number = answers.number_of(last)
        _check_progress(trial, last_number, request)
        _check_measured(request)
        known = locked.energy_source
        if known is None and names_source and not is_first:
            known = store.source_of_others(connection, trial)
        _check_energy_source(known, request)

        locked.belief = locked.belief or states.add_belief(connection, job, trial.exploration)
        verdict, state = _judge(connection, job, locked.belief, trial, report)
        number = request.report_number or last_number + 1
        locked.new.append(store.new_report(trial, job, at, number, report, verdict))
        _add_metric(job, trial, request.metric)
        trial.energy_source = request.energy_source or trial.energy_source
        trial.accumulate_grad_batches = request.accumulate_grad_batches
        trial.process = request.process or trial.process
        if trial.outcome_code == store.LOST:
            store.revive_trial(trial)
        if verdict.code is VerdictCode.CALIBRATED:
            rows.save(connection, *locked.new)  # the target is learnt from all reports
            _calibrate(connection, job, trial, at, verdict.reason)
        elif verdict.stop:
            store.end_trial(trial, job, at, TrialStatus.SUCCEEDED, verdict.code, verdict.reason)
            trial.converged = verdict.result
            if state is not None:
                states.save_ended(job, locked.belief, state, trial)
        return answers.to_report(spec, report, verdict)


@transaction
def after(connection: Connection, request: AfterRequest, *, by: Actor, lease_s: float) -> None:
    """Store what a run has used since its verdict, and its best metric. Neither gets worse, so a call may be repeated.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
        ReportConflict: the trial has no verdict.
    """
    with _locked_run(connection, request, by) as (locked, trial):
        job, at, last = locked.job, locked.at, locked.last_report
        _renew_lease(connection, job, trial, at, lease_s)
        if trial.status not in (TrialStatus.SUCCEEDED, TrialStatus.CALIBRATED):
            raise ReportConflict(f"trial {trial.number} has no verdict yet; report what it uses until then")
        if last is not None:  # a calibration run has its verdict as of an earlier report than the caller's last
            energy_j, time_s = last.energy_j - trial.energy_j, last.time_s - trial.time_s
            trial.energy_after_j = max(trial.energy_after_j, energy_j + request.energy)
            trial.time_after_s = max(trial.time_after_s, time_s + request.time)
        _add_metric(job, trial, request.metric)
        trial.last_seen_at = at


@transaction
def heartbeat(connection: Connection, request: HeartbeatRequest, *, by: Actor, lease_s: float) -> HeartbeatAnswer:
    """Renew a trial's lease, and store how much the run takes on a device at a time if memory ran out.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
    """
    with _locked_run(connection, request, by) as (locked, trial):
        job, at = locked.job, locked.at
        _limit_device_batch_size(job, request.max_device_batch_size)
        _renew_lease(connection, job, trial, at, lease_s)
        return HeartbeatAnswer(status=trial.status, lease_s=lease_s)


@transaction
def probe(connection: Connection, request: ProbeRequest, *, by: Actor, lease_s: float) -> None:
    """Store the result of a probe of batch sizes. Only the first probe of each exploration counts.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
        InvalidField: a batch size is repeated, or is not one of the job's.
    """
    with _locked_run(connection, request, by) as (locked, trial):
        job = locked.job
        _renew_lease(connection, job, trial, locked.at, lease_s)
        sizes = [probed.batch_size for probed in request.sizes]
        unknown = sorted(set(sizes) - set(states.core_spec(job).batch_sizes))
        if unknown:
            listed = ", ".join(map(str, unknown))
            raise InvalidField("sizes", f"{listed}: not among the batch_sizes of job {job.job_id!r}; leave it out")
        if len(set(sizes)) < len(sizes):
            raise InvalidField("sizes", "a batch size is listed twice; list each batch size once")
        if trial.exploration not in states.load_probes(job):
            states.add_probe(job, trial.exploration, request.sizes)
            states.refresh_summary(connection, job, trial.exploration)


@transaction
def end(
    connection: Connection, request: TrialRequest, *, by: Actor, lease_s: float, by_user: bool = False
) -> EndAnswer | None:
    """End a running or lost trial without a verdict. A late report does not revive the trial.

    A caller's end is not final: the run gets the trial back when it asks again (see `ask`). A user's end is final, and
    a user can also end a trial that its caller ended.

    In a job that learns its target, the regular end of a training is the run's result, and the answer has the verdict.
    See `core.calibration`.

    A caller whose `report_number` is lower than the last report's is an outdated attempt of a run that continues
    elsewhere. So is one with another `process` than the last that asked or reported. Such a call ends nothing.

    Returns:
        What follows for the batch size; None: nothing.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial, or the trial has another batch size.
    """
    with _locked_run(connection, request, by, request.batch_size) as (locked, trial):
        job, at = locked.job, locked.at
        _limit_device_batch_size(job, request.max_device_batch_size)
        _renew_lease(connection, job, trial, at, lease_s)
        if _is_of_another(request.process, trial):
            return None
        if request.report_number is not None and request.report_number < answers.number_of(locked.last_report):
            return None
        spec = states.core_spec(job)
        if request.over and answers.has_converged(trial) is not None and spec.target_metric is None:
            return EndAnswer(verdict=answers.to_report_of_ended(spec, trial))  # the first answer may have been lost
        if not _has_ended(trial) or (by_user and trial.outcome_code in (store.ENDED, store.LEFT)):
            outcome = request.reason or "ended by its caller without a verdict"
            if request.over and not by_user and _learns_from(job, trial):
                return EndAnswer(verdict=_judge_end(connection, job, trial, at, outcome))
            code = store.STOPPED if by_user else store.LEFT if request.over else store.ENDED
            store.end_trial(trial, job, at, TrialStatus.FAILED, code, outcome)
            locked.new.append(audit.entry(at, by, Action.END, request.job_id, f"trial {trial.number}: {outcome}"))
            epochs = max(trial.epochs, request.current_epoch)
            broke = not (request.over or request.misconfigured) and request.reason is not None and epochs == 0
            splits_next = request.max_device_batch_size is not None  # so the next run does not break like this
            unfit = request.unfit and not store.has_converged(connection, trial)
            if ((broke and not splits_next) or unfit) and not by_user:
                states.add_breakdown(job, trial, outcome, unfit=unfit)
        ruled_out = _ruled_out(connection, job, trial)
        return None if ruled_out is None else EndAnswer(ruled_out=ruled_out)


@contextmanager
def _locked_run(
    connection: Connection, call: TrialCall, by: Actor, batch_size: int | None = None, *, reads_sources: bool = False
) -> Iterator[tuple[store.LockedRun, Trial]]:
    """Lock a job, with what most calls of a run read, and the run's trial. At the end, store what has changed."""
    job_id, number = call.job_id, call.trial_number
    by.check_may_see(job_id)
    with store.locked_run(connection, job_id, number, reads_sources=reads_sources) as locked:
        trial = locked.trial
        if trial is None:
            raise UnknownTrial(f"job {job_id!r} has no trial {number}; ask for a batch size first")
        if call.run_id not in (None, trial.run_id):
            raise UnknownTrial(
                f"trial {number} of job {job_id!r} is not of run {call.run_id!r}: the job has been deleted and "
                "registered again since that run asked. Launch the training again"
            )
        if batch_size is not None and trial.batch_size != batch_size:
            raise UnknownTrial(f"trial {number} of job {job_id!r} has batch size {trial.batch_size}, not {batch_size}")
        yield locked, trial


def _judge(
    connection: Connection, job: Job, belief: StoredBelief, trial: Trial, report: CoreReport
) -> tuple[Verdict, JobState | None]:
    """Judge a report, and return the state of the job if the verdict needed it."""
    spec = states.spec_at(job, trial.exploration)
    if spec.target_metric is None:
        return calibration.judge(spec, states.to_core_trial(trial), report), None
    reference_j = states.reference_cost(job, belief)
    run = states.to_core_trial(trial)
    going_on = None if reference_j is None else policies.goes_on(spec, run, report, reference_j)
    if going_on is not None:
        return going_on, None
    state = states.load_to_decide(connection, job, belief, trial.exploration)
    return policies.judge(state, run, report), state


def _choose(connection: Connection, locked: store.LockedRun, by: Actor) -> Choice:
    job = locked.job
    spec = states.core_spec(job)
    if job.paused:
        return policies.choose_while_paused(spec)
    if spec.target_metric is None and states.is_out_of_reach(connection, job):
        return _calibrate_again(connection, job, by, f"the last {calibration.MAX_FAILURES} runs did not converge")
    locked.belief = locked.belief or states.add_belief(connection, job, job.exploration)
    rng = states.load_rng(job)
    try:
        choice = policies.choose(states.load_to_decide(connection, job, locked.belief, job.exploration), rng)
    except NothingConverges as error:
        if spec.target_metric is None:
            return _calibrate_again(connection, job, by, str(error))
        raise JobStuck(f"job {job.job_id!r}: {error}") from error
    states.save_rng(job, rng)
    return choice


def _calibrate_again(connection: Connection, job: Job, by: Actor, why: str) -> Choice:
    """Start a new exploration, which learns its own target, and return the batch size of its first run."""
    job.exploration += 1
    states.begin_exploration(connection, job)
    audit.record(connection, by, Action.RESET, job.job_id, f"the target is learnt again: {why}")
    return calibration.choose(states.core_spec(job))


def _learns_from(job: Job, trial: Trial) -> bool:
    """Whether the end of a training is a result: its job learns its target, and the run has reported a metric.

    The end of a lost run is none. Decisions since its loss have read it as lost.
    """
    is_lost = trial.outcome_code == store.LOST
    return states.core_spec(job).target_metric is None and trial.best_metric is not None and not is_lost


def _judge_end(connection: Connection, job: Job, trial: Trial, at: datetime, outcome: str) -> ReportAnswer:
    """End a run whose training is over, in a job that learns its target."""
    spec = states.spec_at(job, trial.exploration)
    if spec.target_metric is None:
        _calibrate(connection, job, trial, at, outcome)
        verdict = Verdict(VerdictCode.CALIBRATED, _calibration_text(connection, job, trial.exploration))
    else:
        verdict = calibration.judge_end(spec, outcome)
        store.end_trial(trial, job, at, TrialStatus.SUCCEEDED, verdict.code, verdict.reason)
        trial.converged = verdict.converged
        store.save_trial(connection, job, trial)
        states.refresh_summary(connection, job, trial.exploration)
    return answers.to_report(spec, CoreReport(None, trial.energy_j, trial.time_s, trial.epochs), verdict)


def _calibrate(connection: Connection, job: Job, trial: Trial, at: datetime, outcome: str) -> None:
    """End a calibration run. If it was the last one needed, learn the target, and give all of them their verdict."""
    store.end_trial(trial, job, at, TrialStatus.CALIBRATED, VerdictCode.CALIBRATED, outcome)
    store.save_trial(connection, job, trial)
    exploration, spec = trial.exploration, states.core_spec(job)
    loaded = store.calibrated_trials(connection, job, exploration)
    runs = [trial if run.id == trial.id else run for run in loaded]  # the caller goes on with this object
    if len(runs) < spec.calibration_runs:
        return
    learnt = calibration.learn(spec, [states.load_curve(connection, run) for run in runs])
    numbers = tuple(run.number for run in runs)
    states.add_target(job, exploration, calibration.LearntTarget(learnt, numbers, job.revision))
    spec = states.spec_at(job, exploration)
    for run in (*runs, *store.open_calibration(connection, job, exploration)):
        first = calibration.first_reached(spec, states.load_curve(connection, run))
        if first is not None:
            store.next_revision(job)  # each end has a revision of its own
            verdict = calibration.verdict(spec, first, run_cost(spec, first.energy_j, first.time_s))
            store.end_at_report(run, job, at, first, verdict)
            store.save_trial(connection, job, run)
    states.refresh_summary(connection, job, exploration)


def _calibration_text(connection: Connection, job: Job, exploration: int) -> str:
    spec = states.spec_at(job, exploration)
    if spec.target_metric is not None:
        return f"the target {spec.target_metric:.6g} is learnt, and the run has reached it"
    _, text = calibration.stage(spec, len(store.calibrated_trials(connection, job, exploration)))
    return text


def _reopen(connection: Connection, job: Job, trial: Trial, *, resumes: bool) -> str | None:
    """Let a run continue its trial, if it may. Returns why not if errors have ruled the batch size out; else None."""
    if trial.outcome_code not in (store.ENDED, store.LEFT, store.LOST):
        return None
    ruled_out = _ruled_out(connection, job, trial)
    if ruled_out is None and (resumes or trial.outcome_code == store.ENDED):
        trial.outcome_code = store.LOST
    if ruled_out is not None and trial.outcome_code == store.LOST:
        trial.outcome_code = store.ENDED
    return ruled_out


def _ruled_out(connection: Connection, job: Job, trial: Trial) -> str | None:
    """Say why errors have ruled out the batch size of a trial; None: they have not."""
    return breakdowns.ruled_out(states.load_breakdowns(connection, job, trial.exploration)).get(trial.batch_size)


def _renew_lease(connection: Connection, job: Job, trial: Trial | None, at: datetime, lease_s: float) -> bool:
    """Renew the lease of a call's trial, and end the job's other running trials whose lease has expired.

    Returns:
        Whether a lease can have expired.
    """
    renewed = trial if trial is not None and not _has_ended(trial) else None
    if renewed is not None:
        renewed.last_seen_at = at
    return store.expire_trials(connection, job, at, lease_s, except_for=renewed)


def _limit_device_batch_size(job: Job, limit: int | None) -> None:
    """Store the largest batch that runs take on a device at a time, if no smaller one is stored. None: no change."""
    known = [size for size in (job.max_device_batch_size, limit) if size is not None]
    job.max_device_batch_size = min(known, default=None)


def _add_metric(job: Job, trial: Trial, metric: float | None) -> None:
    """Keep a run's metric if it is the best so far."""
    known = [value for value in (trial.best_metric, metric) if value is not None]
    best = max if states.core_spec(job).higher_is_better_metric else min
    trial.best_metric = best(known, default=None)


def _is_of_another(process: str | None, trial: Trial) -> bool:
    """Whether another process than this was the last to ask for a trial or to report on it, as far as known."""
    return None not in (process, trial.process) and process != trial.process


def _has_ended(trial: Trial) -> bool:
    """Whether a trial has ended for good. A lost trial has not, because a report can revive it."""
    return trial.status != TrialStatus.DISPATCHED and trial.outcome_code != store.LOST


def _check_progress(trial: Trial, last_number: int, request: ReportRequest) -> None:
    """Check that neither the totals nor the number of a report are lower than those of the last report."""
    totals = (
        ("time", trial.time_s, request.time),
        ("energy", trial.energy_j, request.energy),
        ("current_epoch", trial.epochs, request.current_epoch),
    )
    for name, before, after in totals:
        if after < before:
            raise ReportConflict(
                f"{name} fell from {before:.17g} to {after:.17g} in trial {trial.number}; "
                "report totals since the run's training began"
            )
    if request.report_number is None and last_number == MAX_INT:
        raise ReportConflict(f"trial {trial.number} already has report {MAX_INT}, the highest number; end the trial")
    if request.report_number is not None and request.report_number < last_number:
        raise ReportConflict(
            f"report {request.report_number} comes after report {last_number} in trial {trial.number}; "
            "number the reports of a trial 1, 2, 3 …"
        )


def _check_measured(request: ReportRequest) -> None:
    """Check that an energy counter has moved. A run of 0 J would be the cheapest of all.

    A short run may end between two updates of the counter. A run out of memory fails whatever it cost.
    """
    is_counter = request.energy_source not in (None, "estimated")
    if is_counter and request.energy == 0 and request.time > MAX_STILL_S and not request.out_of_memory:
        raise InvalidField(
            "energy",
            f"0 J in {duration(request.time)} is no measurement: the energy counter ({request.energy_source}) has not "
            "moved. Check that it is readable on this machine: some virtual GPUs (vGPU) and older cards have none, and "
            "a monitor that polls the power needs its polling process. End this trial, and report runs only where "
            "their energy is measured",
        )


def _check_energy_source(known: str | None, request: ReportRequest) -> None:
    """Check that a report names the energy source that the runs so far have named."""
    if request.energy_source is not None and known not in (None, request.energy_source):
        raise ReportConflict(
            f"energy_source is {request.energy_source}, but this job's energies so far come from {known}: costs "
            "from different sources cannot be compared. "
            "Give these runs a job of their own"
        )
