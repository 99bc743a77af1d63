"""Turn rows into the data that the core decides on: a job's spec, its state and its history.

No decision is made here. To let decisions read a new fact about a trial, add a column in `models.py`, a migration, and
one line in `_TRIAL_COLUMNS` and `_to_trial`.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import asdict, replace
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
import structlog
from sqlalchemy import Connection, Select, bindparam, case, func, or_, select, tuple_, union_all
from sqlalchemy.orm import Session

from lightning_bso.wire import ProbedSize

from ..core import calibration, policies, stored
from ..core.breakdowns import depends_on_working_sizes, with_breakdown
from ..core.calibration import LearntTarget
from ..core.gp_ucb.belief import MAX_LOST_TRIALS, Belief, WarmStart, warm_belief
from ..core.replay import PastProbe, PastReport, PastTrial
from ..core.rng import at_position, position_of
from ..core.state import (
    Breakdown,
    Choice,
    EndedSummary,
    JobState,
    ProbeResult,
    Spec,
    TrialStatus,
    TrialType,
    Verdict,
    VerdictCode,
)
from ..core.state import Report as CoreReport
from ..core.state import Trial as CoreTrial
from ..core.summary import Totals
from . import rows, store
from .models import Job, Report, StoredBelief, Trial
from .specs import core_spec as core_spec
from .specs import spec_of as spec_of
from .specs import to_core as to_core

log = structlog.get_logger(__name__)

MAX_SUMMED_METRIC = 1e290
"""A metric beyond this, or below its negative, counts as this in a mean. PostgreSQL refuses a sum that overflows."""


def spec_at(job: Job, exploration: int) -> Spec:
    """Return the spec that decisions of an exploration depend on, with the target that the exploration has learnt."""
    spec = core_spec(job)
    target = load_targets(job).get(exploration) if spec.target_metric is None else None
    return spec if target is None else replace(spec, target_metric=target.target_metric)


def load_rng(job: Job) -> np.random.Generator:
    """Return the job's random generator at its stored position."""
    return at_position(job.rng_position)


def save_rng(job: Job, rng: np.random.Generator) -> None:
    """Store the current position of the job's random generator."""
    job.rng_position = position_of(rng)


# One row of `_TRIAL_COLUMNS` makes one `CoreTrial`. Columns are faster to load than objects, and a decision may read
# many trials.
_TRIAL_COLUMNS = (
    Trial.number,
    Trial.batch_size,
    Trial.type,
    Trial.status,
    Trial.converged,
    Trial.energy_j,
    Trial.time_s,
    Trial.epochs,
    Trial.started_revision,
    Trial.ended_revision,
    Trial.bound_factor,
    Trial.epoch_limit_j,
    Trial.outcome_code,
)


def _with_status(status: TrialStatus) -> Select[*tuple[Any, ...]]:
    return select(*_TRIAL_COLUMNS).where(
        Trial.job == bindparam("job"), Trial.exploration == bindparam("exploration"), Trial.status == status
    )


_LAST_LOST = (
    _with_status(TrialStatus.FAILED)
    .where(Trial.epochs > 0)
    .order_by(Trial.ended_revision.desc(), Trial.number.desc())
    .limit(MAX_LOST_TRIALS)
    .subquery()
)
# The trials that a decision reads beside the summary: the running trials, those that ended since the summary, and lost
# trials of batch sizes without a result. Three unsorted queries, because SQLite would scan all trials of the job for
# one query with OR or with ORDER BY.
_TRIALS_TO_READ = union_all(
    _with_status(TrialStatus.DISPATCHED),
    _with_status(TrialStatus.SUCCEEDED).where(Trial.ended_revision >= bindparam("last_revision")),
    select(_LAST_LOST).where(_LAST_LOST.c.batch_size.in_(bindparam("sizes_without_result", expanding=True))),
)

_BELIEF = select(*rows.columns(StoredBelief)).where(
    StoredBelief.job == bindparam("job"), StoredBelief.exploration == bindparam("exploration")
)
_IN_EXPLORATION = (Trial.job == Job.id) & (Trial.exploration == Job.exploration)
_WORKING_SIZES = (
    select(Trial.batch_size)
    .where(Trial.job == bindparam("job"), Trial.exploration == bindparam("exploration"))
    .where(or_(Trial.epochs > 0, Trial.converged.is_(True)))
    .distinct()
)

# Used for each trial of a decision. Calling the enum instead takes three times as long.
_TYPES = {type_.value: type_ for type_ in TrialType}
_STATUSES = {status.value: status for status in TrialStatus}


def _to_trial(row: Sequence[Any]) -> CoreTrial:
    *start, energy_j, time_s, epochs, started, ended, bound_factor, epoch_limit_j, code = row
    number, batch_size, type_, status, converged = start
    return CoreTrial(
        number,
        batch_size,
        _TYPES[type_],
        _STATUSES[status],
        converged,
        energy_j,
        time_s,
        epochs,
        started,
        ended,
        bound_factor,
        epoch_limit_j,
        code == VerdictCode.OUT_OF_MEMORY,
    )


def begin_exploration(connection: Connection, job: Job) -> None:
    """Store that no trial of the job's current exploration has ended, so none has drifted either."""
    job.drifted_trial = None
    rows.save(connection, rows.new(StoredBelief, job=job.id, exploration=job.exploration, summary=stored.NOTHING))


def add_belief(connection: Connection, job: Job, exploration: int) -> StoredBelief:
    """Store a row for the summary of an exploration, which `load_to_decide` fills in."""
    row = rows.new(StoredBelief, job=job.id, exploration=exploration, summary="")
    rows.save(connection, row)
    return row


def reference_cost(job: Job, row: StoredBelief) -> float | None:
    """Return the stored reference cost of an exploration in joules; None: a decision has to load the state.

    With breakdowns, the batch sizes that count for it also depend on trials that are not part of the summary.
    """
    return None if job.breakdowns is not None else stored.reference_cost(row.summary)


def load_to_decide(connection: Connection, job: Job, row: StoredBelief, exploration: int) -> JobState:
    """Load the state that a decision reads, and put its summary into the row. The job must be locked.

    Args:
        connection: the transaction.
        job: the job.
        row: the stored summary of the exploration.
        exploration: the exploration.
    """
    if row.summary and stored.reference_cost(row.summary) is None:
        log.warning("summary_not_readable", job_id=job.job_id, exploration=exploration, then="read all trials again")
    state = _load_state(connection, job, row, exploration)
    save_state(job, row, state)
    return state


def refresh_summary(connection: Connection, job: Job, exploration: int) -> None:
    """Store the summary of an exploration again, because what it depends on has changed. The job must be locked."""
    row = _find_belief(connection, job, exploration) or add_belief(connection, job, exploration)
    load_to_decide(connection, job, row, exploration)
    rows.save(connection, row)


def read_state(reads: Session | Connection, job: Job) -> JobState:
    """Load the state of a job's current exploration without a lock, for display."""
    exploration = job.exploration
    state = _load_state(reads, job, _find_belief(reads, job, exploration), exploration)
    if state.spec.target_metric is not None:
        return replace(state, out_of_reach=is_out_of_reach(reads, job))
    return replace(state, calibrated=len(store.calibrated_trials(reads, job, exploration)))


def read_states(session: Session, jobs: Sequence[Job]) -> dict[int, JobState]:
    """Load the states of many jobs for display, by the jobs' numbers, in a few queries.

    Lost trials are left out. They say what to try next, not which batch size has proved best.
    """
    ids = [job.id for job in jobs]
    is_current = (StoredBelief.job == Job.id) & (StoredBelief.exploration == Job.exploration)
    summaries = select(Job.id, StoredBelief.summary).join(StoredBelief, is_current).where(Job.id.in_(ids))
    text_of = dict(session.execute(summaries).all())
    running, last = _running(session, ids), _last_with_verdict(session, ids)
    learning = [job.id for job in jobs if core_spec(job).target_metric is None]
    calibrated, verdicts = _count_calibrated(session, learning), _last_verdicts_of(session, learning)
    state_of = {}
    for job in jobs:
        state = _state_by_summary(job, text_of.get(job.id, ""), running.get(job.id, ()), last.get(job.id, ()))
        if state is None:
            state_of[job.id] = read_state(session, job)
        elif state.spec.target_metric is None:
            state_of[job.id] = replace(state, calibrated=calibrated.get(job.id, 0))
        else:
            state_of[job.id] = replace(state, out_of_reach=calibration.out_of_reach(verdicts.get(job.id, ())))
    return state_of


def _state_by_summary(job: Job, text: str, running: Sequence[CoreTrial], last: Sequence[CoreTrial]) -> JobState | None:
    """Return a job's state; None: more than its stored summary is needed.

    Args:
        job: the job.
        text: the stored summary.
        running: the running trials.
        last: the last trials to get a verdict; several if they got theirs at once.
    """
    if job.breakdowns is not None:
        return None
    spec = spec_at(job, job.exploration)
    initial = _initial(job, spec, job.exploration)
    summary = stored.restore(text, initial) or initial
    if list(last) != [trial for trial in [summary.last] if trial is not None]:
        return None
    probe = load_probes(job).get(job.exploration)
    return policies.compact(JobState(spec, tuple(running), summary, probe.results if probe else ()))


def _running(session: Session, jobs: Collection[int]) -> dict[int, list[CoreTrial]]:
    query = select(Trial.job, *_TRIAL_COLUMNS).join(Job, _IN_EXPLORATION)
    return _by_job(session, query.where(Trial.job.in_(jobs), Trial.status == TrialStatus.DISPATCHED))


def _last_with_verdict(session: Session, jobs: Collection[int]) -> dict[int, list[CoreTrial]]:
    has_verdict = Trial.status == TrialStatus.SUCCEEDED
    last = select(Trial.job, Trial.exploration, func.max(Trial.ended_revision).label("revision"))
    last = last.join(Job, _IN_EXPLORATION).where(Trial.job.in_(jobs), has_verdict)
    found = last.group_by(Trial.job, Trial.exploration).subquery()
    is_last = (Trial.job == found.c.job) & (Trial.exploration == found.c.exploration)
    query = select(Trial.job, *_TRIAL_COLUMNS).join(found, is_last & (Trial.ended_revision == found.c.revision))
    return _by_job(session, query.where(has_verdict))


def _count_calibrated(session: Session, jobs: Collection[int]) -> dict[int, int]:
    """Count the calibration runs that have ended and wait for the target, by job."""
    if not jobs:
        return {}
    query = select(Trial.job, func.count()).join(Job, _IN_EXPLORATION).group_by(Trial.job)
    found = session.execute(query.where(Trial.job.in_(jobs), Trial.status == TrialStatus.CALIBRATED))
    return dict(found.all())


def _last_verdicts_of(session: Session, jobs: Collection[int]) -> dict[int, list[CoreTrial]]:
    """Return what `_last_verdicts` does, for many jobs."""
    if not jobs:
        return {}
    place = func.row_number().over(partition_by=Trial.job, order_by=Trial.ended_revision.desc())
    ended = select(Trial.id, place.label("place")).join(Job, _IN_EXPLORATION)
    ended = ended.where(Trial.job.in_(jobs), Trial.status == TrialStatus.SUCCEEDED, Trial.converged.is_not(None))
    found = ended.subquery()
    is_latest = (Trial.id == found.c.id) & (found.c.place <= calibration.MAX_FAILURES)
    return _by_job(session, select(Trial.job, *_TRIAL_COLUMNS).join(found, is_latest))


def _by_job(session: Session, trials: Select[*tuple[Any, ...]]) -> dict[int, list[CoreTrial]]:
    of_jobs: dict[int, list[CoreTrial]] = {}
    for job, *columns in session.execute(trials):
        of_jobs.setdefault(job, []).append(_to_trial(columns))
    return of_jobs


def _load_state(reads: Session | Connection, job: Job, row: StoredBelief | None, exploration: int) -> JobState:
    """Load the trials of an exploration, and a summary of those that ended.

    The summary is stored, so a decision does not read all ended trials again. The stored summary is only a cache: ended
    trials never change, and without a usable summary all of them are read.
    """
    spec = spec_at(job, exploration)
    initial = _initial(job, spec, exploration)
    probe = load_probes(job).get(exploration)
    restored = None if row is None else stored.restore(row.summary, initial)
    trials = _trials_since(reads, job, exploration, restored or initial)
    if restored is not None:
        if restored.last in trials:
            trials.remove(restored.last)
        else:  # the trials were changed by hand, so the stored summary is wrong
            restored, trials = None, _trials_since(reads, job, exploration, initial)
    broken = load_breakdowns(reads, job, exploration)
    probe_results = probe.results if probe else ()
    state = replace(broken, trials=tuple(trials), summary=restored or initial, probe_results=probe_results)
    return policies.compact(state)


def _find_belief(reads: Session | Connection, job: Job, exploration: int) -> StoredBelief | None:
    values = reads.execute(_BELIEF, {"job": job.id, "exploration": exploration}).one_or_none()
    return None if values is None else rows.load(StoredBelief, values)


def save_state(job: Job, row: StoredBelief, state: JobState) -> None:
    """Put the summary of a state and its reference cost into the row. The job must be locked."""
    if state.summary is None or state.summary.last is None:
        row.summary = stored.NOTHING
    else:
        initial = _initial(job, state.spec, row.exploration)
        row.summary = stored.save(state.summary, initial, policies.reference_cost(state))


def save_ended(job: Job, row: StoredBelief, state: JobState, trial: Trial) -> None:
    """Put the summary of a state into the row, with a trial that has just ended. The job must be locked."""
    others = tuple(other for other in state.trials if other.number != trial.number)
    after = policies.compact(replace(state, trials=(*others, to_core_trial(trial))))
    save_state(job, row, after)
    is_current = trial.exploration == job.exploration
    if is_current and after.summary is not None and after.summary.has_just_drifted:
        job.drifted_trial = trial.number


def _initial(job: Job, spec: Spec, exploration: int) -> EndedSummary:
    """Return the summary of an exploration before its first trial has ended."""
    return policies.summarize_ended(JobState(spec, (), initial_summary(job, exploration)))


def load_full_state(reads: Session | Connection, job: Job) -> JobState:
    """Load all trials of a job's current exploration that run or have a verdict, without a summary."""
    spec = spec_at(job, job.exploration)
    return JobState(spec, tuple(_trials_since(reads, job, job.exploration, EndedSummary())))


def _trials_since(reads: Session | Connection, job: Job, exploration: int, summary: EndedSummary) -> list[CoreTrial]:
    """Load the trials that decisions read beside a summary, and the last trial that the summary covers."""
    values = {
        "job": job.id,
        "exploration": exploration,
        "last_revision": summary.last_revision,
        "sizes_without_result": summary.sizes_without_result,
    }
    trials = [_to_trial(row) for row in reads.execute(_TRIALS_TO_READ, values)]
    return sorted(trials, key=lambda trial: trial.number)


def load_totals(
    session: Session, jobs: Collection[int] | None, *, before: CoreTrial | None = None
) -> dict[int, dict[int, list[Totals]]]:
    """Return totals of the trials of some jobs, by job and exploration. The database computes the sums.

    Args:
        session: the transaction.
        jobs: the jobs' numbers in the database; None: all jobs.
        before: only trials that ended before this trial.
    """
    key = (Trial.job, Trial.exploration, Trial.batch_size, Trial.status, Trial.converged)
    metric = case(
        (Trial.best_metric > MAX_SUMMED_METRIC, MAX_SUMMED_METRIC),
        (Trial.best_metric < -MAX_SUMMED_METRIC, -MAX_SUMMED_METRIC),
        else_=Trial.best_metric,
    )
    sums = [
        *(func.count(), *(func.sum(column) for column in (Trial.energy_j, Trial.time_s, Trial.epochs))),
        *(func.count(Trial.best_metric), func.coalesce(func.sum(metric), 0.0)),
    ]
    query = select(*key, *sums).group_by(*key)
    if jobs is not None:
        query = query.where(Trial.job.in_(jobs))
    if before is not None:
        query = query.where(tuple_(Trial.ended_revision, Trial.number) < (before.ended, before.number))
    totals_of: dict[int, dict[int, list[Totals]]] = {}
    for row in session.execute(query):
        job, exploration, size, status, converged, trials, energy_j, time_s, epochs, *best = tuple[Any, ...](row)
        totals = Totals(size, _STATUSES[status], converged, trials, energy_j, time_s, float(epochs), *best)
        totals_of.setdefault(job, {}).setdefault(exploration, []).append(totals)
    return totals_of


def load_last_ended(session: Session, job: Job, limit: int) -> list[tuple[CoreTrial, int, str, datetime | None]]:
    """Return the last `limit` trials of a job that ended, in the order of their ends.

    Each comes with its exploration, its outcome code and the time of its end.
    """
    trials = select(*_TRIAL_COLUMNS, Trial.exploration, Trial.ended_at)
    trials = trials.where(Trial.job == job.id, Trial.ended_revision.is_not(None))
    last = session.execute(trials.order_by(Trial.ended_revision.desc(), Trial.number.desc()).limit(limit)).all()
    return [(_to_trial(columns), exploration, columns[-1] or "", at) for *columns, exploration, at in reversed(last)]


def is_out_of_reach(reads: Session | Connection, job: Job) -> bool:
    """Whether the learnt target of a job's exploration has become out of reach."""
    if job.exploration not in load_targets(job):
        return False
    return calibration.out_of_reach(_last_verdicts(reads, job, calibration.MAX_FAILURES))


def _last_verdicts(reads: Session | Connection, job: Job, limit: int) -> list[CoreTrial]:
    """Return the last `limit` trials of a job's current exploration that converged or failed, as they ended."""
    ended = select(*_TRIAL_COLUMNS).where(
        Trial.job == job.id,
        Trial.status == TrialStatus.SUCCEEDED,
        Trial.converged.is_not(None),
        Trial.exploration == job.exploration,
    )
    last = reads.execute(ended.order_by(Trial.ended_revision.desc()).limit(limit)).all()
    return [_to_trial(row) for row in reversed(last)]


def initial_summary(job: Job, exploration: int) -> Belief | None:
    """Return the belief that a warm start gives an exploration; None: no warm start. A reset discards it."""
    if job.warm_start is None or exploration > 0:
        return None
    return warm_belief(core_spec(job), WarmStart(**json.loads(job.warm_start)))


def load_probes(job: Job) -> dict[int, PastProbe]:
    """Return the results of a job's probes, by exploration."""
    return {} if job.probes is None else _probes(job.probes)


@lru_cache(maxsize=1024)
def _probes(text: str) -> dict[int, PastProbe]:
    return {
        int(exploration): PastProbe(
            probe["revision"],
            tuple(
                ProbeResult(size["batch_size"], size["fits"], size["epoch_energy"], size["epoch_time"])
                for size in probe["sizes"]
            ),
        )
        for exploration, probe in json.loads(text).items()
    }


def load_breakdowns(reads: Session | Connection, job: Job, exploration: int) -> JobState:
    """Load the part of a state that tells which batch sizes break. It has no trials.

    Few jobs have a repeated breakdown. Only for these does the database search all trials of the job.
    """
    kept = all_breakdowns(job).get(exploration, ())
    working_sizes: frozenset[int] = frozenset()
    if depends_on_working_sizes(kept):
        working_sizes = frozenset(reads.scalars(_WORKING_SIZES, {"job": job.id, "exploration": exploration}))
    return JobState(spec_at(job, exploration), (), breakdowns=kept, working_sizes=working_sizes)


def all_breakdowns(job: Job) -> dict[int, tuple[Breakdown, ...]]:
    """Return the breakdowns of a job, by exploration."""
    return {} if job.breakdowns is None else _breakdowns(job.breakdowns)


@lru_cache(maxsize=1024)
def _breakdowns(text: str) -> dict[int, tuple[Breakdown, ...]]:
    return {
        int(exploration): tuple(Breakdown(**breakdown) for breakdown in of_exploration)
        for exploration, of_exploration in json.loads(text).items()
    }


def add_breakdown(job: Job, trial: Trial, error: str, *, unfit: bool) -> None:
    """Store that a trial broke down by an error."""
    breakdowns = all_breakdowns(job)
    before = breakdowns.get(trial.exploration, ())
    after = with_breakdown(core_spec(job), before, Breakdown(trial.batch_size, error, job.revision, unfit))
    if after != before:
        stored_breakdowns = breakdowns | {trial.exploration: after}
        job.breakdowns = json.dumps({number: list(map(asdict, kept)) for number, kept in stored_breakdowns.items()})


def add_probe(job: Job, exploration: int, sizes: Sequence[ProbedSize]) -> None:
    """Store the results of an exploration's probe, and the energy and time that the probe took."""
    probes = {} if job.probes is None else json.loads(job.probes)
    probes[str(exploration)] = {"revision": job.revision, "sizes": [size.model_dump() for size in sizes]}
    job.probes = json.dumps(probes)


def load_targets(job: Job) -> dict[int, LearntTarget]:
    """Return the targets that a job has learnt, by exploration."""
    return {} if job.targets is None else _targets(job.targets)


@lru_cache(maxsize=1024)
def _targets(text: str) -> dict[int, LearntTarget]:
    return {
        int(exploration): LearntTarget(target["target_metric"], tuple(target["trials"]), target["revision"])
        for exploration, target in json.loads(text).items()
    }


def add_target(job: Job, exploration: int, target: LearntTarget) -> None:
    """Store the target that an exploration has learnt."""
    job.targets = json.dumps(
        {number: asdict(learnt) for number, learnt in (load_targets(job) | {exploration: target}).items()}
    )


def load_curve(reads: Session | Connection, trial: Trial) -> list[CoreReport]:
    """Return the reports of a trial, in order."""
    query = select(*rows.columns(Report)).where(Report.trial == trial.id).order_by(Report.number)
    return [_to_report(rows.load(Report, values)) for values in reads.execute(query)]


def load_history(connection: Connection, job: Job) -> list[PastTrial]:
    """Load all trials, reports and decisions of a job, for `core.replay`."""
    reports: dict[int, list[PastReport]] = {}
    query = select(*rows.columns(Report)).join(Trial, Report.trial == Trial.id).where(Trial.job == job.id)
    for values in connection.execute(query.order_by(Report.revision)):
        row = rows.load(Report, values)
        verdict = Verdict(VerdictCode(row.code), row.message)
        reports.setdefault(row.trial, []).append(
            PastReport(row.revision, _to_report(row), verdict, row.expired_revision)
        )
    return [
        PastTrial(
            to_core_trial(row),
            Choice(row.batch_size, TrialType(row.type), row.reason, row.bound_factor, row.epoch_limit_j),
            row.exploration,
            tuple(reports.get(row.id, ())),
        )
        for row in store.trials_of(connection, job)
    ]


def _to_report(row: Report) -> CoreReport:
    out_of_memory = row.code == VerdictCode.OUT_OF_MEMORY  # no other report leads to this verdict
    return CoreReport(row.metric, row.energy_j, row.time_s, row.epoch, out_of_memory)


def to_core_trial(trial: Trial) -> CoreTrial:
    """Return a trial in the form that the core reads."""
    return _to_trial([getattr(trial, column.key) for column in _TRIAL_COLUMNS])
