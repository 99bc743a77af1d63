"""Turn rows into what the core decides on: a job's spec, its state, its past.

Nothing here decides or changes anything. To give decisions a new fact about a trial, add the column in `models.py`, a
migration, and one line in `_TRIAL_COLUMNS` and `_to_trial`.
"""

import json
from collections.abc import Sequence
from dataclasses import fields
from datetime import datetime
from functools import lru_cache
from typing import Any

import numpy as np
from sqlalchemy import or_, select
from sqlalchemy.orm import Session

from backend.core import policies, thompson
from backend.core.belief import Belief, WarmStart, warm_beginning
from backend.core.replay import PastReport, PastTrial
from backend.core.state import Choice, JobState, Spec, TrialStatus, TrialType, Verdict, VerdictCode
from backend.core.state import Report as CoreReport
from backend.core.state import Trial as CoreTrial
from backend.models import Job, Report, Trial
from lightning_bso.wire import RegisteredJobSpec

_SPEC_FIELDS = {field.name for field in fields(Spec)}


def spec_of(job: Job) -> RegisteredJobSpec:
    """A job's spec as it was registered."""
    return RegisteredJobSpec.model_validate_json(job.spec)


def core_spec(job: Job) -> Spec:
    """What of a job's spec the decisions depend on."""
    return _core_spec(job.spec)


@lru_cache(maxsize=1024)
def _core_spec(text: str) -> Spec:
    return to_core(RegisteredJobSpec.model_validate_json(text))


def to_core(spec: RegisteredJobSpec) -> Spec:
    """What of a spec the decisions depend on."""
    values = spec.model_dump(include=_SPEC_FIELDS)
    return Spec(**values | {"batch_sizes": tuple(values["batch_sizes"])})


def load_rng(job: Job) -> np.random.Generator:
    """The job's random generator where it stands."""
    return thompson.restore(job.rng_position)


def save_rng(job: Job, rng: np.random.Generator) -> None:
    """Keep where the job's random generator stands now."""
    job.rng_position = thompson.save(rng)


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
)


# Looked up per trial of every decision; calling the enum takes three times as long.
_TYPES = {type_.value: type_ for type_ in TrialType}
_STATUSES = {status.value: status for status in TrialStatus}


def _to_trial(row: Sequence[Any]) -> CoreTrial:
    number, batch_size, type_, status, converged, energy_j, time_s, epochs, started, ended, bound_factor = row
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
    )


def load_state(session: Session, job: Job, exploration: int | None = None) -> JobState:
    """What a decision may look at: the trials of an exploration, by default the current one.

    What a policy can keep of ended trials is remembered by this process, and they are not read again. That is no
    second truth: trials that ended never change, and a process that remembers nothing reads them all.
    """
    exploration = job.exploration if exploration is None else exploration
    memory = _memory(session.get_bind().engine.url, job.id, job.created_at, exploration)
    past = memory.get("past")
    trials = _trials_since(session, job, exploration, past)
    if past is not None and past.last is not None:
        if past.last in trials:
            trials.remove(past.last)
        else:  # the database was restored from a backup: what is remembered never happened
            past, trials = None, _trials_since(session, job, exploration, None)
    state = policies.condensed(JobState(core_spec(job), tuple(trials), past or beginning_of(job, exploration)))
    if state.past is not None:
        memory["past"] = state.past
    return state


def _trials_since(session: Session, job: Job, exploration: int, past: Belief | None) -> list[CoreTrial]:
    """The trials that are not told by `past`, and the last that is."""
    trials = select(*_TRIAL_COLUMNS).where(Trial.job == job.id, Trial.exploration == exploration)
    if past is not None:
        trials = trials.where(or_(Trial.status != TrialStatus.SUCCEEDED, Trial.ended_revision >= past.through))
    return [_to_trial(row) for row in session.execute(trials.order_by(Trial.number))]


@lru_cache(maxsize=1024)
def _memory(_database: object, _job: int, _created_at: datetime, _exploration: int) -> dict[str, Belief]:
    """What this process remembers of a job's exploration; a job made anew under the same number has another time."""
    return {}


def load_trials(session: Session, job: Job) -> list[CoreTrial]:
    """All trials of a job's current exploration, by rising number."""
    return _trials_since(session, job, job.exploration, None)


def beginning_of(job: Job, exploration: int) -> Belief | None:
    """What a job began with, if it did not begin from nothing. A reset forgets that, too."""
    if job.warm_start is None or exploration > 0:
        return None
    return warm_beginning(core_spec(job), WarmStart(**json.loads(job.warm_start)))


def load_past(session: Session, job: Job) -> list[PastTrial]:
    """All that was ever decided about a job, for `core.replay`."""
    reports: dict[int, list[PastReport]] = {}
    query = select(Report).join(Trial, Report.trial == Trial.id).where(Trial.job == job.id)
    for row in session.scalars(query.order_by(Report.revision)):
        report = CoreReport(row.metric, row.energy_j, row.time_s, row.epoch)
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
