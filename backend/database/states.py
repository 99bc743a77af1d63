"""Turn rows into what the core decides on: a job's spec, its state, its past.

Nothing here decides or changes anything. To give decisions a new fact about a trial, add the column in `models.py`, a
migration, and one line in `_TRIAL_COLUMNS` and `_to_trial`.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy import Select, bindparam, func, select, tuple_, union_all
from sqlalchemy.orm import Session

from backend.core import policies, stored
from backend.core.gp_ucb.belief import MOST_LOST, Belief, WarmStart, warm_beginning
from backend.core.replay import PastProbe, PastReport, PastTrial
from backend.core.rng import at_position, position_of
from backend.core.state import Choice, JobState, Past, Probed, Spec, TrialStatus, TrialType, Verdict, VerdictCode
from backend.core.state import Report as CoreReport
from backend.core.state import Trial as CoreTrial
from backend.core.summary import Totals
from backend.database.models import Job, Report, StoredBelief, Trial
from lightning_bso.wire import ProbedSize, RegisteredJobSpec

_SPEC_FIELDS = {field.name for field in fields(Spec)}


def spec_of(job: Job) -> RegisteredJobSpec:
    """A job's spec as it was registered."""
    return RegisteredJobSpec.model_validate_json(job.spec)


def core_spec(job: Job) -> Spec:
    """What of a job's spec the decisions depend on."""
    return _core_spec(job.spec)


@lru_cache(maxsize=16_384)  # the overview looks at every job
def _core_spec(text: str) -> Spec:
    return to_core(RegisteredJobSpec.model_validate_json(text))


def to_core(spec: RegisteredJobSpec) -> Spec:
    """What of a spec the decisions depend on."""
    values = spec.model_dump(include=_SPEC_FIELDS)
    return Spec(**values | {"batch_sizes": tuple(values["batch_sizes"])})


def load_rng(job: Job) -> np.random.Generator:
    """The job's random generator where it stands."""
    return at_position(job.rng_position)


def save_rng(job: Job, rng: np.random.Generator) -> None:
    """Keep where the job's random generator stands now."""
    job.rng_position = position_of(rng)


# One row of `_TRIAL_COLUMNS` is one `CoreTrial`. Columns and not objects: a decision reads every trial.
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
    .limit(MOST_LOST)
    .subquery()
)
# Those that run, those that have ended since, and those lost where nothing else is known. Three searches, and unsorted:
# for one with OR, or in order, SQLite walks through all trials of the job.
_LOOKED_AT = union_all(
    _with_status(TrialStatus.DISPATCHED),
    _with_status(TrialStatus.SUCCEEDED).where(Trial.ended_revision >= bindparam("through")),
    select(_LAST_LOST).where(_LAST_LOST.c.batch_size.in_(bindparam("unsettled", expanding=True))),
)

# Looked up per trial of every decision; calling the enum takes three times as long.
_TYPES = {type_.value: type_ for type_ in TrialType}
_STATUSES = {status.value: status for status in TrialStatus}


def _to_trial(row: Sequence[Any]) -> CoreTrial:
    number, batch_size, type_, status, converged, energy_j, time_s, epochs, started, ended, bound_factor, code = row
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
        code == VerdictCode.OUT_OF_MEMORY,
    )


def load_state(session: Session, job: Job, exploration: int | None = None, *, remember: bool = False) -> JobState:
    """What a decision may look at: the trials of an exploration, by default the current one.

    What a policy has learnt from ended trials is stored, and they are not read again. That is no second truth: trials
    that ended never change, and where nothing usable is stored they are all read.

    Args:
        session: the transaction.
        job: the job.
        exploration: of which exploration.
        remember: whether to store what has been learnt since; the job must be locked.
    """
    exploration = job.exploration if exploration is None else exploration
    beginning = policies.known(JobState(core_spec(job), (), beginning_of(job, exploration)))
    probe = load_probes(job).get(exploration)
    row = session.get(StoredBelief, (job.id, exploration))
    known = None if row is None else stored.restore(row.told, beginning)
    trials = _trials_since(session, job, exploration, known or beginning)
    if known is not None:
        if known.last in trials:
            trials.remove(known.last)
        else:  # somebody has changed the trials by hand: what is stored never happened
            known, trials = None, _trials_since(session, job, exploration, beginning)
    probed = probe.probed if probe else ()
    state = policies.condensed(JobState(core_spec(job), tuple(trials), known or beginning, probed))
    if remember and state.past is not None and state.past.last is not (known or beginning).last:
        row = row or StoredBelief(job=job.id, exploration=exploration)
        row.told = stored.save(state.past, beginning)
        session.add(row)
    return state


def load_whole(session: Session, job: Job) -> JobState:
    """All trials of a job's current exploration that have a verdict or run, for who learns from them anew."""
    return JobState(core_spec(job), tuple(_trials_since(session, job, job.exploration, Past())))


def _trials_since(session: Session, job: Job, exploration: int, past: Past) -> list[CoreTrial]:
    """The trials that decisions look at beside `past`, and the last of those that it tells."""
    values = {"job": job.id, "exploration": exploration, "through": past.through, "unsettled": past.unsettled}
    trials = [_to_trial(row) for row in session.execute(_LOOKED_AT, values)]
    return sorted(trials, key=lambda trial: trial.number)


def load_totals(
    session: Session, jobs: Collection[int] | None, *, before: CoreTrial | None = None
) -> dict[int, dict[int, list[Totals]]]:
    """The trials of jobs, added up in the database, by job and exploration.

    Args:
        session: the transaction.
        jobs: their numbers in the database; None: all jobs.
        before: only trials that ended before this one.
    """
    key = (Trial.job, Trial.exploration, Trial.batch_size, Trial.status, Trial.converged)
    sums = [func.count(), *(func.sum(column) for column in (Trial.energy_j, Trial.time_s, Trial.epochs))]
    query = select(*key, *sums).group_by(*key)
    if jobs is not None:
        query = query.where(Trial.job.in_(jobs))
    if before is not None:
        query = query.where(tuple_(Trial.ended_revision, Trial.number) < (before.ended, before.number))
    found: dict[int, dict[int, list[Totals]]] = {}
    for row in session.execute(query):
        job, exploration, size, status, converged, trials, energy_j, time_s, epochs = tuple[Any, ...](row)
        totals = Totals(size, _STATUSES[status], converged, trials, energy_j, time_s, float(epochs))
        found.setdefault(job, {}).setdefault(exploration, []).append(totals)
    return found


def load_last_ended(session: Session, job: Job, limit: int) -> list[tuple[CoreTrial, int, str]]:
    """The trials of a job that ended last, in the order of their ends, with their exploration and outcome's code."""
    trials = select(*_TRIAL_COLUMNS, Trial.exploration)
    trials = trials.where(Trial.job == job.id, Trial.ended_revision.is_not(None))
    rows = session.execute(trials.order_by(Trial.ended_revision.desc(), Trial.number.desc()).limit(limit)).all()
    return [(_to_trial(columns), exploration, columns[-1] or "") for *columns, exploration in reversed(rows)]


def beginning_of(job: Job, exploration: int) -> Belief | None:
    """What a job began with, if it did not begin from nothing. A reset forgets that, too."""
    if job.warm_start is None or exploration > 0:
        return None
    return warm_beginning(core_spec(job), WarmStart(**json.loads(job.warm_start)))


def load_probes(job: Job) -> dict[int, PastProbe]:
    """What probes of a job's batch sizes told, by exploration."""
    return {} if job.probes is None else _probes(job.probes)


@lru_cache(maxsize=1024)
def _probes(text: str) -> dict[int, PastProbe]:
    return {
        int(exploration): PastProbe(
            probe["revision"],
            tuple(
                Probed(one["batch_size"], one["fits"], one["epoch_energy"], one["epoch_time"]) for one in probe["sizes"]
            ),
        )
        for exploration, probe in json.loads(text).items()
    }


def add_probe(job: Job, exploration: int, sizes: Sequence[ProbedSize]) -> None:
    """Keep what the probe of an exploration told, and what it took."""
    probes = {} if job.probes is None else json.loads(job.probes)
    probes[str(exploration)] = {"revision": job.revision, "sizes": [one.model_dump() for one in sizes]}
    job.probes = json.dumps(probes)


def load_past(session: Session, job: Job) -> list[PastTrial]:
    """All that was ever decided about a job, for `core.replay`."""
    reports: dict[int, list[PastReport]] = {}
    query = select(Report).join(Trial, Report.trial == Trial.id).where(Trial.job == job.id)
    for row in session.scalars(query.order_by(Report.revision)):
        report = CoreReport(
            row.metric, row.energy_j, row.time_s, row.epoch, row.code == VerdictCode.OUT_OF_MEMORY
        )  # what nothing else leads to
        reports.setdefault(row.trial, []).append(
            PastReport(row.revision, report, Verdict(VerdictCode(row.code), row.message), row.expired_revision)
        )
    return [
        PastTrial(
            to_core_trial(row),
            Choice(row.batch_size, TrialType(row.type), row.reason, row.bound_factor),
            row.exploration,
            tuple(reports.get(row.id, ())),
        )
        for row in session.scalars(select(Trial).where(Trial.job == job.id).order_by(Trial.number))
    ]


def to_core_trial(trial: Trial) -> CoreTrial:
    """A trial as the core sees it."""
    return _to_trial([getattr(trial, column.key) for column in _TRIAL_COLUMNS])
