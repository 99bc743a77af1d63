"""The sums over a job's trials, kept so that no page adds up trials: in the job's row, and by day in `job_days`.

Whoever changes a trial counts the change here, in the same transaction and round trip (`store`). The job is locked, so
the sums of several replicas do not mix. Nothing here reads sums; `queries` does.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import asdict
from datetime import date
from functools import cache
from typing import Any, Final, cast

from sqlalchemy import Connection, Insert, Table, bindparam, delete, select
from sqlalchemy.dialects import mysql, postgresql, sqlite

from ..core.attention import idle_from
from ..core.cost import run_cost
from ..core.savings import SUMMED, Sums, team_of
from ..core.state import Spec, TrialStatus, TrialType
from . import rows, specs
from .batches import Statement
from .extensions import Base
from .models import Job, JobDay, Trial

EXPLORING = (TrialType.CALIBRATION, TrialType.PRUNING, TrialType.MAB)
"""Types of trials whose success ends a row of failures. Others run beside an exploration, or while a job is paused."""
OF_DEFAULT: Final = ("recurrences", "energy_j", "time_s", "cost_j")
"""The sums that are kept of converged trials with the default batch size, too. Their columns begin with `default_`."""
NOTHING: Final[dict[str, Any]] = {
    **dict.fromkeys(("launches", "last_success", "last_verdict"), 0),
    **asdict(Sums()),
    **{f"default_{name}": getattr(Sums(), name) for name in OF_DEFAULT},
}
"""The sums in the row of a job without trials."""
_DAYS = cast(Table, JobDay.__table__)


def count(connection: Connection, job: Job, *changed: Base | None) -> list[Statement]:
    """Count what has changed of some trials since they were stored. Call this before they are stored.

    Args:
        connection: the transaction.
        job: the job, which must be locked. Its row is changed, and is to be stored.
        changed: rows of which the trials are counted.

    Returns:
        The changes of the sums by day, to be sent with the trials.
    """
    by_day = _add(job, (cast(Trial, row) for row in changed if rows.is_of(row, Trial)))
    upsert = _upsert(connection.dialect.name)
    return [(upsert, {"job": job.id, "day": day} | asdict(sums)) for day, sums in by_day.items() if sums != Sums()]


def recount(connection: Connection, job: Job) -> None:
    """Count all trials of a job anew. The job must be locked, and its trials stored."""
    for name, value in NOTHING.items():
        setattr(job, name, value)
    query = select(*rows.columns(Trial)).where(Trial.job == job.id).order_by(Trial.number)
    by_day = _add(job, (rows.load(Trial, values) for values in connection.execute(query)), anew=True)
    job.summed_revision, job.team = job.revision, team_of(job.job_id)
    connection.execute(delete(_DAYS).where(_DAYS.c.job == job.id))
    rows.save(connection, job, *(rows.new(JobDay, job=job.id, day=day, **asdict(sums)) for day, sums in by_day.items()))


def _add(job: Job, trials: Iterable[Trial], *, anew: bool = False) -> dict[date, Sums]:
    """Add trials to the sums of a job's row, in place of what is stored of them. Returns the changes by day.

    Args:
        job: the job.
        trials: the trials.
        anew: whether the sums do not have these trials yet, although they are stored.
    """
    spec = specs.core_spec(job)
    by_day: dict[date, Sums] = defaultdict(Sums)
    for trial in trials:
        stored = None if anew else rows.before(trial)
        if stored is None:
            job.launches, job.last_launch_at = trial.number, trial.started_at
            job.idle_from = idle_from(trial.number, job.created_at, trial.started_at)
        elif trial.status == stored.status == TrialStatus.DISPATCHED:
            continue
        if stored is not None and stored.status != TrialStatus.DISPATCHED:
            _add_ended(job, spec, stored, by_day, gone=True)
        if trial.status != TrialStatus.DISPATCHED:
            _add_ended(job, spec, trial, by_day)
    return by_day


def _add_ended(job: Job, spec: Spec, trial: Trial, by_day: dict[date, Sums], *, gone: bool = False) -> None:
    cost_j = run_cost(spec, trial.energy_j, trial.time_s)
    sums = Sums(1, int(bool(trial.converged)), trial.energy_j, trial.time_s, cost_j)
    sums = -sums if gone else sums
    by_day[(trial.ended_at or trial.last_seen_at).date()] += sums
    for name in SUMMED:
        setattr(job, name, max(0, getattr(job, name) + getattr(sums, name)))
    if trial.converged and trial.batch_size == spec.default_batch_size:
        for name in OF_DEFAULT:
            of_default = f"default_{name}"
            setattr(job, of_default, max(0, getattr(job, of_default) + getattr(sums, name)))
    if trial.converged and trial.type in EXPLORING:
        job.last_success = max(job.last_success, trial.number)
    if trial.status in (TrialStatus.SUCCEEDED, TrialStatus.CALIBRATED):
        job.last_verdict = max(job.last_verdict, trial.number)


@cache
def _upsert(dialect: str) -> Insert:
    """Return the statement that adds to the sums of a day, of which there may be no row yet."""
    values: dict[str, Any] = {name: bindparam(name) for name in ("job", "day", *SUMMED)}
    if dialect in ("mysql", "mariadb"):
        of_mysql = mysql.insert(_DAYS).values(values)
        return of_mysql.on_duplicate_key_update({name: _DAYS.c[name] + of_mysql.inserted[name] for name in SUMMED})
    insert = (sqlite if dialect == "sqlite" else postgresql).insert(_DAYS).values(values)
    added = {name: _DAYS.c[name] + insert.excluded[name] for name in SUMMED}
    upsert: Insert = insert.on_conflict_do_update(index_elements=[_DAYS.c.job, _DAYS.c.day], set_=added)
    return upsert
