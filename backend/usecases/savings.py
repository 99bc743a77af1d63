"""The savings of all jobs in a range of days: by team, by job, and over time. Nothing here changes data.

A day is that of the database's clock, in UTC. The numbers come from kept sums (`backend.database.sums`), but
for the regret of the jobs that are shown, whose trials are added up.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Literal

from lightning_bso.wire import GroupSavings, Savings

from ..core import savings as core
from ..core.savings import Usage
from ..core.summary import Totals
from ..database import queries, states, store
from ..database.models import Job
from ..database.queries import Days, GroupSums
from ..database.transactions import Session, read_only
from .audit import Actor
from .records import usage_record

MAX_JOBS = 20
"""Rows of the table of jobs: half of them the jobs that save most, half those that save least."""

GroupBy = Literal["prefix", "job"]


@dataclass(frozen=True, slots=True)
class SavingsOfJob:
    """The savings of a job in a range of days."""

    group: GroupSavings
    regret: Usage | None
    """The usage above that of all recurrences at the best batch size, which was not known in advance."""


@dataclass(frozen=True, slots=True)
class SavingsPage:
    """The savings of all jobs in a range of days."""

    by_team: Savings
    jobs: Sequence[SavingsOfJob]
    """The jobs that save most energy, and those that save least, `MAX_JOBS` in all."""
    known_jobs: int
    """Number of the jobs with known savings."""


@read_only
def today(session: Session) -> date:
    """Return the day of the database's clock."""
    return store.now(session).date()


@read_only
def by_group(session: Session, by: Actor, days: Days, group_by: GroupBy) -> Savings:
    """Return the savings of all jobs that the actor may see, by group."""
    return _by_group(session, by.job_id_prefix, days, group_by)


@read_only
def page(session: Session, by: Actor, days: Days) -> SavingsPage:
    """Return the savings of all jobs that the actor may see, by team and by job."""
    prefix = by.job_id_prefix
    by_team = _by_group(session, prefix, days, "prefix")
    shown = most_and_least(session, prefix, days, MAX_JOBS)
    rows = {job.id: job for job in queries.jobs_numbered(session, [job.first for job in shown])}
    totals_of = states.load_totals(session, list(rows))
    jobs = [
        SavingsOfJob(_group(job), _regret(rows[job.first], job.sums, totals_of.get(job.first, {})))
        for job in shown
        if job.first in rows  # else deleted since
    ]
    return SavingsPage(by_team, jobs, by_team.total.jobs - by_team.total.unknown_jobs)


@read_only
def by_day(session: Session, by: Actor, days: Days) -> list[tuple[date, Usage]]:
    """Return what all jobs with known savings have saved on each day, in order. Days without an ended run are left out.

    The sum over the days is the total of `by_group`.
    """
    return queries.saved_by_day(session, by.job_id_prefix, days)


def total(session: Session, prefix: str | None, days: Days) -> GroupSums:
    """Return the sums over the runs of all jobs that ended in a range of days."""
    found = queries.group_sums(session, prefix, days)
    return found[0] if found else GroupSums("", 0, 0, 0, core.Sums(), 0.0, Usage(0.0, 0.0, 0.0))


def most_and_least(session: Session, prefix: str | None, days: Days, limit: int) -> list[GroupSums]:
    """Return the jobs that save most energy, and those that save least, from most to least."""
    found: dict[str, GroupSums] = {}
    for least_first in (False, True):
        half = queries.job_sums(session, prefix, days, only_known=True, least_first=least_first, limit=limit // 2)
        found |= {job.group: job for job in (reversed(half) if least_first else half)}
    return list(found.values())


def _by_group(session: Session, prefix: str | None, days: Days, group_by: GroupBy) -> Savings:
    if group_by == "prefix":
        found = queries.group_sums(session, prefix, days, by_team=True)
    else:
        found = queries.job_sums(session, prefix, days)
    (since, until), of_all = days, _group(total(session, prefix, days))
    return Savings(since=since, until=until, group_by=group_by, total=of_all, groups=list(map(_group, found)))


def _group(group: GroupSums) -> GroupSavings:
    return GroupSavings(
        group=group.group,
        jobs=group.jobs,
        unknown_jobs=group.unknown_jobs,
        launches=group.sums.runs,
        recurrences=group.sums.recurrences,
        spent=usage_record(group.sums.usage),
        saved=usage_record(group.saved),
        energy_share_saved=core.share_saved(group.saved.energy_j, group.known_energy_j),
    )


def _regret(job: Job, sums: core.Sums, explorations: Mapping[int, Sequence[Totals]]) -> Usage | None:
    totals = [group for of_exploration in explorations.values() for group in of_exploration]
    return core.regret(states.core_spec(job), totals, sums)
