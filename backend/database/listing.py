"""Queries behind the lists of the admin page: search, filters, order and pages over one table each.

A query finds the numbers of rows. `backend.usecases.lists` loads the rows and computes what a list shows of them.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import ColumnElement, Select, UnaryExpression, and_, exists, func, or_, select, true
from sqlalchemy.orm import InstrumentedAttribute, Session

from ..core.periods import Period
from ..core.state import TrialStatus
from .models import AuditEntry, Job, Note, Trial, as_json
from .queries import begins_with, count_rows

Condition = ColumnElement[bool]


@dataclass(frozen=True, slots=True)
class ListQuery:
    """The rows that a user asks for, and their order."""

    words: Sequence[str] = ()
    """A row must contain every word, in any case. The characters of a word have no special meaning."""
    filters: Mapping[str, Any] = field(default_factory=dict)
    """Values that a row must have, by the name of the filter."""
    sort: str | None = None
    """Name of a column to sort by. None, or a column without an order: newest first."""
    descending: bool = False


@dataclass(frozen=True, slots=True)
class ListedTable:
    """A table whose rows can be searched, filtered and sorted."""

    key: InstrumentedAttribute[int]
    contains: Callable[[str], Condition]
    """Make the condition that a row contains a word."""
    filters: Mapping[str, Callable[[Any], Condition]]
    """Make the condition that a row has a value, by the name of the filter."""
    sortable: Mapping[str, ColumnElement[Any] | InstrumentedAttribute[Any]]
    newest_first: Sequence[UnaryExpression[Any]]
    of_jobs: Callable[[str | None], Sequence[Condition]]
    """Make the condition that a row is about a job whose id starts with a prefix; None: no condition."""


def _contains(word: str, *columns: InstrumentedAttribute[Any]) -> Condition:
    return or_(*(column.icontains(word, autoescape=True) for column in columns))


def _of_job(condition: Condition) -> Condition:
    return Trial.job.in_(select(Job.id).where(condition))


def _within(column: InstrumentedAttribute[datetime], period: Period) -> Condition:
    return and_(*_bounds(column, column, period))


def _bounds(
    end: InstrumentedAttribute[datetime], begin: InstrumentedAttribute[datetime], period: Period
) -> Sequence[Condition]:
    """Make the conditions that what lasts from `begin` to `end` is, at least in part, within a period."""
    since, until = (at and at.astimezone(UTC).replace(tzinfo=None) for at in period)
    conditions = [] if since is None else [end >= since]
    return [true(), *conditions, *([] if until is None else [begin < until])]


def _has_run(period: Period) -> Condition:
    seen = (Trial.status.in_(list(TrialStatus)), *_bounds(Trial.last_seen_at, Trial.started_at, period))
    return Job.id.in_(select(Trial.job).where(*seen))


def _of_trials(value: ColumnElement[Any], *which: Condition) -> ColumnElement[Any]:
    """Make a value of a job's trials, to sort jobs by. An index finds it."""
    return select(value).where(Trial.job == Job.id, *which).correlate(Job).scalar_subquery()


def _of_its_job(value: ColumnElement[Any] | InstrumentedAttribute[Any]) -> ColumnElement[Any]:
    """Make a value of a trial's job, to sort trials by."""
    return select(value).where(Job.id == Trial.job).correlate(Trial).scalar_subquery()


def _cost_j() -> ColumnElement[Any]:
    """Make the cost of a trial, as `core.cost` computes it."""
    spec = as_json(Job.spec)
    eta, max_power = spec["eta_knob"].as_float(), spec["max_power"].as_float()
    cost: ColumnElement[Any] = eta * Trial.energy_j + (1 - eta) * max_power * Trial.time_s
    return cost


def _tagged(tag: str) -> Condition:
    return Note.tags.contains(f" {tag} ", autoescape=True)


def _has_status(codes: Collection[str]) -> Condition:
    """Make the condition that a trial has ended with one of some codes; with no codes, that it runs."""
    return Trial.outcome_code.in_(codes) if codes else Trial.status == TrialStatus.DISPATCHED


JOBS = ListedTable(
    key=Job.id,
    contains=lambda word: _contains(word, Job.job_id, Job.gpu_model),
    filters={
        "policy": lambda value: Job.policy == value,
        "gpu": lambda value: Job.gpu_model == value,
        "paused": lambda value: Job.paused == value,
        "prefix": lambda value: and_(*begins_with(Job.job_id, value)),
        "team": lambda value: Job.team == value,
        "period": _has_run,
        "tag": lambda tag: Job.id.in_(select(Note.job).where(Note.trial_number == 0, _tagged(tag))),
    },
    sortable={
        "job": Job.job_id,
        "policy": Job.policy,
        "gpu": Job.gpu_model,
        "paused": Job.paused,
        "trials": _of_trials(func.max(Trial.number)),
        "running": _of_trials(func.count(), Trial.status == TrialStatus.DISPATCHED),
        "launched": func.coalesce(Job.last_launch_at, datetime(1970, 1, 1)),  # databases sort NULL differently
        "created": Job.created_at,
    },
    newest_first=(Job.created_at.desc(), Job.id.desc()),
    of_jobs=lambda prefix: begins_with(Job.job_id, prefix),
)

TRIALS = ListedTable(
    key=Trial.id,
    contains=lambda word: or_(
        _of_job(_contains(word, Job.job_id)), _contains(word, Trial.run_id, Trial.host, Trial.reason, Trial.outcome)
    ),
    filters={
        "job": lambda value: _of_job(Job.job_id == value),
        "batch_size": lambda value: Trial.batch_size == value,
        "status": _has_status,
        "prefix": lambda value: _of_job(and_(*begins_with(Job.job_id, value))),
        "period": lambda period: _within(Trial.started_at, period),
        "tag": lambda tag: exists(
            select(Note.job).where(Note.job == Trial.job, Note.trial_number == Trial.number, _tagged(tag))
        ),
    },
    sortable={
        "job": _of_its_job(Job.job_id),
        "trial": Trial.number,
        "batch_size": Trial.batch_size,
        "status": Trial.outcome_code,
        "cost": _of_its_job(_cost_j()),
        "energy": Trial.energy_j,
        "time": Trial.time_s,
        "epochs": Trial.epochs,
        "host": Trial.host,
        "energy_source": Trial.energy_source,
        "started": Trial.started_at,
    },
    newest_first=(Trial.id.desc(),),
    of_jobs=lambda prefix: [_of_job(condition) for condition in begins_with(Job.job_id, prefix)],
)

AUDIT = ListedTable(
    key=AuditEntry.id,
    contains=lambda word: _contains(word, AuditEntry.actor, AuditEntry.job_id, AuditEntry.detail, AuditEntry.address),
    filters={
        "action": lambda value: AuditEntry.action == value,
        "job": lambda value: AuditEntry.job_id == value,
        "period": lambda period: _within(AuditEntry.at, period),
    },
    sortable={
        "at": AuditEntry.at,
        "actor": AuditEntry.actor,
        "address": AuditEntry.address,
        "action": AuditEntry.action,
        "job": AuditEntry.job_id,
    },
    newest_first=(AuditEntry.id.desc(),),
    of_jobs=lambda prefix: begins_with(AuditEntry.job_id, prefix),
)


def count(session: Session, table: ListedTable, query: ListQuery, prefix: str | None) -> int:
    """How many rows a query finds among those of the jobs with a prefix; None: of all jobs."""
    return count_rows(session, _matching(table, query, prefix))


def find(
    session: Session,
    table: ListedTable,
    query: ListQuery,
    prefix: str | None,
    offset: int = 0,
    limit: int | None = None,
) -> Sequence[int]:
    """The numbers of the rows that a query finds, in its order.

    Args:
        session: the transaction.
        table: the table to search.
        query: which rows, and in which order.
        prefix: only rows about jobs whose ids start with it; None: all rows.
        offset: how many to skip, if there is a limit.
        limit: how many to return at most; None: all.
    """
    rows = _matching(table, query, prefix).order_by(*_order(table, query))
    if limit is not None:
        rows = rows.offset(offset).limit(limit)
    return session.scalars(rows).all()


def largest_teams(session: Session, prefix: str | None, most: int) -> list[tuple[str, int]]:
    """The teams with the most jobs, each with its number of jobs: those of several jobs.

    Args:
        session: the transaction.
        prefix: only jobs whose ids start with it; None: all jobs.
        most: maximum number of teams to return.
    """
    jobs = func.count()
    teams = select(Job.team, jobs).where(Job.team != "", *begins_with(Job.job_id, prefix)).group_by(Job.team)
    rows = session.execute(teams.having(jobs > 1).order_by(jobs.desc(), Job.team).limit(most))
    return [(team, number) for team, number in rows]


def trials_numbered(session: Session, ids: Collection[int]) -> Sequence[Trial]:
    """Trials of any jobs by their numbers in the database, in no particular order."""
    return session.scalars(select(Trial).where(Trial.id.in_(ids))).all()


def entries_numbered(session: Session, ids: Collection[int]) -> Sequence[AuditEntry]:
    """Entries of the audit log by their numbers, in no particular order."""
    return session.scalars(select(AuditEntry).where(AuditEntry.id.in_(ids))).all()


def _matching(table: ListedTable, query: ListQuery, prefix: str | None) -> Select[int]:
    conditions = [*table.of_jobs(prefix), *(table.contains(word) for word in query.words)]
    conditions += [table.filters[name](value) for name, value in query.filters.items()]
    return select(table.key).where(*conditions)


def _order(table: ListedTable, query: ListQuery) -> Sequence[UnaryExpression[Any]]:
    column = table.sortable.get(query.sort or "")
    if column is None:
        return table.newest_first
    # Rows with equal values need an order too, or a row could be on two pages.
    return (column.desc(), table.key.desc()) if query.descending else (column.asc(), table.key.asc())
