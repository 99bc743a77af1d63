"""The use cases that change something: one function, one transaction.

Each locks the job first, loads plain data, asks the core, writes and commits. No rule of the decisions is
here (`backend.core`), no SQL (`store.py`), no HTTP (`api.py`). What only reads is in `queries.py`.
"""

import secrets
from datetime import datetime

from backend.core import policies
from backend.core.cost import run_cost
from backend.core.gp_ucb.belief import NothingToTake, WarmStart, warm_start
from backend.core.state import Choice, NothingConverges, Spec, TrialStatus, Verdict, VerdictCode
from backend.core.state import Report as CoreReport
from backend.database import states, store
from backend.database.models import Job, Report, Trial
from backend.database.transactions import Session, transaction
from backend.errors import (
    InvalidField,
    JobSpecDiffers,
    JobStuck,
    ReportConflict,
    TokenLacksScope,
    UnknownJob,
    UnknownTrial,
)
from backend.usecases import audit
from backend.usecases.audit import Action, Actor
from lightning_bso.wire import (
    MAX_GP_UCB_BATCH_SIZES,
    MAX_INT,
    MAX_SEED,
    AskAnswer,
    HeartbeatAnswer,
    ProbeRequest,
    RegisteredJobSpec,
    ReportAnswer,
    ReportRequest,
    TrialRequest,
)


@transaction
def register(session: Session, spec: RegisteredJobSpec, *, by: Actor) -> tuple[RegisteredJobSpec, bool]:
    """Register a job, or find it registered. Returns its spec and whether it is new.

    Raises:
        JobSpecDiffers: the id stands for another spec.
        InvalidField: it cannot begin with what the job that it names knows.
        TokenLacksScope: the caller may not give a job this name.
    """
    if spec.job_id is None:
        spec = spec.model_copy(update={"job_id": f"{spec.job_id_prefix}-{secrets.token_hex(4)}"})
    if not by.may_know(spec.job_id or ""):
        raise TokenLacksScope(f"this token is for jobs whose job_id begins with {by.job_id_prefix!r}; name the job so")
    job = store.find_job(session, spec.job_id or "")
    if job is None:
        seed = secrets.randbelow(MAX_SEED) if spec.mab_seed is None else spec.mab_seed
        store.add_job(session, spec, seed, _warm_start(session, spec, by))
        audit.record(session, by, Action.REGISTER, spec.job_id)
        return spec, True
    known = states.spec_of(job)
    if known != spec:
        differing = [name for name, value in known if value != getattr(spec, name)]
        raise JobSpecDiffers(
            f"job {spec.job_id!r} is registered with another spec; it differs in {', '.join(differing)}. "
            "Give the changed training a job_id of its own, or delete the old job"
        )
    return known, False


@transaction
def ask(
    session: Session,
    job_id: str,
    run_id: str | None,
    *,
    by: Actor,
    lease_s: float,
    host: str | None = None,
    resumes: bool = True,
) -> AskAnswer:
    """The batch size for a run: a new trial, or the one that this `run_id` was given before.

    A trial that its caller has ended counts as lost from now on: its run is back, and may report again. One that was
    left at its end does so only for a caller that `resumes` it: to any other it may be an earlier training's.

    Raises:
        UnknownJob: there is no such job.
        JobStuck: no batch size is left to give.
    """
    job, at = _lock(session, job_id, by)
    trial = None if run_id is None else store.trial_of_run(session, job, run_id)
    if trial is not None and trial.outcome_code in ((store.ENDED, store.LEFT) if resumes else (store.ENDED,)):
        trial.outcome_code = store.LOST
    _hear_of(session, job, trial, at, lease_s)
    if trial is not None:
        return _to_ask_answer(job, trial, _number(store.last_report(session, trial)), lease_s)
    trial = store.add_trial(session, job, at, run_id, _choice(session, job), host)
    audit.record(session, by, Action.ASK, job_id, f"trial {trial.number}, batch size {trial.batch_size}")
    return _to_ask_answer(job, trial, 0, lease_s)


@transaction
def report(session: Session, request: ReportRequest, *, by: Actor, lease_s: float) -> ReportAnswer:
    """Take in what a validation found, and judge it.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial, or it has another batch size.
        ReportConflict: the report goes back behind an earlier one, differs from the one of its number, or has its
            energy from another source than the job's other runs.
    """
    job, at = _lock(session, request.job_id, by)
    trial = _trial(session, job, request.trial_number, request.batch_size)
    _hear_of(session, job, trial, at, lease_s)
    spec = states.core_spec(job)
    report = CoreReport(request.metric, request.energy, request.time, request.current_epoch, request.out_of_memory)
    last = store.last_report(session, trial)
    if last is not None and request.report_number is not None and request.report_number <= last.number:
        stored = store.report_numbered(session, trial, request.report_number)
        if stored is not None:
            return _answer_again(spec, report, stored)
    if _ended(trial):
        return _recorded_outcome(spec, trial)
    last_number = _number(last)
    _check_forward(trial, last_number, request)
    if request.energy_source not in (None, trial.energy_source):
        _check_source(store.energy_sources(session, job, trial.exploration), request)

    state = states.load_state(session, job, trial.exploration, remember=True)
    verdict = policies.judge(state, states.to_core_trial(trial), report)
    store.add_report(session, trial, job, at, request.report_number or last_number + 1, report, verdict)
    trial.energy_source = request.energy_source or trial.energy_source
    trial.accumulate_grad_batches = request.accumulate_grad_batches
    if trial.outcome_code == store.LOST:
        store.revive_trial(trial)
    if verdict.stop:
        store.end_trial(trial, job, at, TrialStatus.SUCCEEDED, verdict.code, verdict.reason)
        trial.converged = verdict.converged
    return _to_report_answer(spec, report, verdict)


@transaction
def heartbeat(session: Session, job_id: str, trial_number: int, *, by: Actor, lease_s: float) -> HeartbeatAnswer:
    """Renew a trial's lease.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
    """
    job, at = _lock(session, job_id, by)
    trial = _trial(session, job, trial_number)
    _hear_of(session, job, trial, at, lease_s)
    return HeartbeatAnswer(status=trial.status, lease_s=lease_s)


@transaction
def probe(session: Session, request: ProbeRequest, *, by: Actor, lease_s: float) -> None:
    """Take in what a run has found out about batch sizes, if anything. Of each exploration the first probe counts.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
        InvalidField: it tells of what is no batch size of the job, or twice of one.
    """
    job, at = _lock(session, request.job_id, by)
    trial = _trial(session, job, request.trial_number)
    _hear_of(session, job, trial, at, lease_s)
    told = [one.batch_size for one in request.sizes]
    unknown = sorted(set(told) - set(states.core_spec(job).batch_sizes))
    if unknown:
        raise InvalidField("sizes", f"{', '.join(map(str, unknown))} is no batch size of job {job.job_id!r}")
    if len(set(told)) < len(told):
        raise InvalidField("sizes", "a batch size is told of twice; tell of each once")
    if trial.exploration not in states.load_probes(job):
        states.add_probe(job, trial.exploration, request.sizes)


@transaction
def end(session: Session, request: TrialRequest, *, by: Actor, lease_s: float, by_a_person: bool = False) -> None:
    """End a trial without a result, if it has not ended yet; a late report does not revive it, lost or not.

    A person ends it also where its caller has, so that its run does not come back. A caller that knows less than what
    was reported is what is left of a broken attempt, which the run has gone on from elsewhere: it ends nothing.

    Its run gets it again when it asks by its name (see `ask`), but not what a person has ended.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial, or it has another batch size.
    """
    job, at = _lock(session, request.job_id, by)
    trial = _trial(session, job, request.trial_number, request.batch_size)
    _hear_of(session, job, trial, at, lease_s)
    if request.report_number is not None and request.report_number < _number(store.last_report(session, trial)):
        return
    if not _ended(trial) or (by_a_person and trial.outcome_code in (store.ENDED, store.LEFT)):
        outcome = request.reason or "ended by its caller without a result"
        code = store.STOPPED if by_a_person else store.LEFT if request.over else store.ENDED
        store.end_trial(trial, job, at, TrialStatus.FAILED, code, outcome)
        audit.record(session, by, Action.END, request.job_id, f"trial {trial.number}: {outcome}")


@transaction
def reset(session: Session, job_id: str, *, by: Actor) -> None:
    """Begin a job's exploration anew; what it has recorded stays, and no longer counts.

    Raises:
        UnknownJob: there is no such job.
    """
    job, _ = _lock(session, job_id, by)
    job.exploration += 1
    audit.record(session, by, Action.RESET, job_id)


@transaction
def pause(session: Session, job_id: str, *, paused: bool, by: Actor) -> None:
    """Have every run of a job get the default batch size, without a bound on its cost; or have it decide again.

    Raises:
        UnknownJob: there is no such job.
    """
    job, _ = _lock(session, job_id, by)
    if job.paused != paused:
        job.paused = paused
        audit.record(session, by, Action.PAUSE if paused else Action.RESUME, job_id)


@transaction
def delete(session: Session, job_id: str, *, by: Actor) -> None:
    """Delete a job and all that it has recorded.

    Raises:
        UnknownJob: there is no such job.
    """
    job, _ = _lock(session, job_id, by)
    store.delete_job(session, job)
    audit.record(session, by, Action.DELETE, job_id)


def _lock(session: Session, job_id: str, by: Actor) -> tuple[Job, datetime]:
    if not by.may_know(job_id):
        raise UnknownJob(job_id)
    return store.lock_job(session, job_id)


def _choice(session: Session, job: Job) -> Choice:
    if job.paused:
        return policies.choose_while_paused(states.core_spec(job))
    rng = states.load_rng(job)
    try:
        choice = policies.choose(states.load_state(session, job, remember=True), rng)
    except NothingConverges as error:
        raise JobStuck(f"job {job.job_id!r}: {error}") from error
    states.save_rng(job, rng)
    return choice


def _warm_start(session: Session, spec: RegisteredJobSpec, by: Actor) -> WarmStart | None:
    if spec.warm_start_from is None:
        return None
    donor = store.find_job(session, spec.warm_start_from)
    if donor is None or not by.may_know(donor.job_id):
        raise _not_to_start_from(spec, "is not known; check its id")
    theirs = states.core_spec(donor)
    if len(theirs.batch_sizes) > MAX_GP_UCB_BATCH_SIZES:
        raise _not_to_start_from(spec, f"has more than {MAX_GP_UCB_BATCH_SIZES} batch sizes, too many to learn from")
    if (theirs.target_metric, theirs.higher_is_better_metric) != (spec.target_metric, spec.higher_is_better_metric):
        target = f"{theirs.target_metric:g} ({'or above' if theirs.higher_is_better_metric else 'or below'})"
        raise _not_to_start_from(spec, f"trains to another target, {target}, which takes other epochs")
    try:
        # Another policy keeps other things of its trials.
        load = states.load_state if donor.policy == spec.policy else states.load_whole
        return warm_start(load(session, donor), states.to_core(spec))
    except NothingToTake as error:
        raise _not_to_start_from(spec, f"has nothing to start from: {error}") from error


def _not_to_start_from(spec: RegisteredJobSpec, why: str) -> InvalidField:
    return InvalidField("warm_start_from", f"job {spec.warm_start_from!r} {why}; name another one, or leave it out")


def _hear_of(session: Session, job: Job, trial: Trial | None, at: datetime, lease_s: float) -> None:
    """Renew the lease of the trial that a call is about, and end the job's others whose lease is over."""
    heard = trial if trial is not None and not _ended(trial) else None
    if heard is not None:
        heard.last_seen_at = at
    store.expire_trials(session, job, at, lease_s, but=heard)


def _number(report: Report | None) -> int:
    return 0 if report is None else report.number


def _ended(trial: Trial) -> bool:
    """Whether a trial has ended for good; one that was only taken for lost has not."""
    return trial.status != TrialStatus.DISPATCHED and trial.outcome_code != store.LOST


def _trial(session: Session, job: Job, number: int, batch_size: int | None = None) -> Trial:
    trial = store.trial_numbered(session, job, number)
    if trial is None:
        raise UnknownTrial(f"job {job.job_id!r} has no trial {number}; ask for a batch size first")
    if batch_size is not None and trial.batch_size != batch_size:
        raise UnknownTrial(f"trial {number} of job {job.job_id!r} has batch size {trial.batch_size}, not {batch_size}")
    return trial


def _check_forward(trial: Trial, last_number: int, request: ReportRequest) -> None:
    pairs = (
        ("time", trial.time_s, request.time),
        ("energy", trial.energy_j, request.energy),
        ("current_epoch", trial.epochs, request.current_epoch),
    )
    for name, before, after in pairs:
        if after < before:
            raise ReportConflict(
                f"{name} fell from {before:.17g} to {after:.17g} in trial {trial.number}; "
                "report totals since the run's training began"
            )
    if request.report_number is None and last_number == MAX_INT:
        raise ReportConflict(f"trial {trial.number} has had report {MAX_INT}, and there is no number after that")
    if request.report_number is not None and request.report_number < last_number:
        raise ReportConflict(
            f"report {request.report_number} comes after report {last_number} in trial {trial.number}; "
            "number reports 1, 2, 3 … in the order they are made"
        )


def _check_source(known: set[str], request: ReportRequest) -> None:
    if request.energy_source is not None and known - {request.energy_source}:
        raise ReportConflict(
            f"energy_source is {request.energy_source}, and this job's energies so far are {', '.join(sorted(known))}: "
            "costs from different sources cannot be compared. Give these runs a job of their own"
        )


def _answer_again(spec: Spec, report: CoreReport, stored: Report) -> ReportAnswer:
    out_of_memory = stored.code == VerdictCode.OUT_OF_MEMORY
    if CoreReport(stored.metric, stored.energy_j, stored.time_s, stored.epoch, out_of_memory) != report:
        raise ReportConflict(
            f"report {stored.number} was received before with other content; give the next report the next number"
        )
    code = VerdictCode(stored.code)
    return _to_report_answer(spec, report, Verdict(code, stored.message))


def _recorded_outcome(spec: Spec, trial: Trial) -> ReportAnswer:
    return ReportAnswer(
        stop_train=True,
        converged=bool(trial.converged),
        message=f"trial {trial.number} has ended before: {trial.outcome}",
        reason=trial.outcome_code or "",
        cost=run_cost(spec, trial.energy_j, trial.time_s),
    )


def _to_report_answer(spec: Spec, report: CoreReport, verdict: Verdict) -> ReportAnswer:
    return ReportAnswer(
        stop_train=verdict.stop,
        converged=verdict.converged,
        message=verdict.reason,
        reason=verdict.code,
        cost=run_cost(spec, report.energy_j, report.time_s),
    )


def _to_ask_answer(job: Job, trial: Trial, last_report_number: int, lease_s: float) -> AskAnswer:
    spec = states.core_spec(job)
    return AskAnswer(
        job_id=job.job_id,
        batch_size=trial.batch_size,
        trial_number=trial.number,
        type=trial.type,
        reason=trial.reason,
        status=trial.status,
        outcome=None if trial.outcome_code == store.LOST else trial.outcome,
        lease_s=lease_s,
        time=trial.time_s,
        energy=trial.energy_j,
        current_epoch=trial.epochs,
        report_number=last_report_number,
        probe_wanted=spec.policy == "gp-ucb" and trial.exploration not in states.load_probes(job),
    )
