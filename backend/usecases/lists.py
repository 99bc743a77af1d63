"""The long lists of the admin page: jobs, trials and the audit log, a page or everything at a time.

First find the numbers of the rows, then load the rows. So an export reads a long list in parts, and no connection to
the database stays open while a browser downloads it. The columns are in `backend.web.admin.lists`, the SQL in
`backend.database.listing`. An actor limited to some jobs finds only the rows of these.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from lightning_bso.wire import AuditRecord, JobListing

from ..core.cost import run_cost
from ..database import listing, notes, queries, states
from ..database.listing import AUDIT, JOBS, TRIALS, ListedTable, ListQuery
from ..database.models import Job, Note, Trial
from ..database.transactions import Session, read_only
from . import reading
from .audit import Actor
from .facts import Facts, facts_of
from .notes import NoteRecord, note_record, of_jobs
from .records import audit_record, utc

__all__ = ["AUDIT", "JOBS", "TRIALS", "ListQuery", "ListedTable"]

PAGE_SIZE = 50


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a list."""

    total: int
    """Rows on all pages."""
    number: int
    """Number of the page, from 0."""
    pages: int
    """How many pages there are: at least one, which may be empty."""
    ids: Sequence[int]
    """Numbers of the rows on the page, in order."""


@dataclass(frozen=True, slots=True)
class ListedTrial:
    """A trial as the list of all trials shows it."""

    job_id: str
    number: int
    batch_size: int
    default_batch_size: int
    """Of its job."""
    recommended_batch_size: int | None
    """Of its job."""
    outcome_code: str | None
    energy_j: float
    time_s: float
    cost_j: float
    epochs: int
    host: str | None
    energy_source: str | None
    started_at: datetime
    reason: str
    outcome: str | None
    note: NoteRecord | None


@dataclass(frozen=True, slots=True)
class ListedJob:
    """A job as the list of all jobs shows it."""

    job: JobListing
    note: NoteRecord | None


@read_only
def find_page(session: Session, table: ListedTable, query: ListQuery, number: int, by: Actor) -> Page:
    """Find the rows of a page. A number beyond the list stands for the nearest page.

    Args:
        session: the transaction.
        table: `JOBS`, `TRIALS` or `AUDIT`.
        query: which rows, and in which order.
        number: number of the page, from 0.
        by: the actor that reads.
    """
    prefix = by.job_id_prefix
    total = listing.count(session, table, query, prefix)
    pages = max(1, -(-total // PAGE_SIZE))
    number = max(0, min(number, pages - 1))
    return Page(total, number, pages, listing.find(session, table, query, prefix, number * PAGE_SIZE, PAGE_SIZE))


@read_only
def find_all(session: Session, table: ListedTable, query: ListQuery, by: Actor) -> Sequence[int]:
    """Find the numbers of all rows of a query that an actor may see, in the query's order."""
    return listing.find(session, table, query, by.job_id_prefix)


@read_only
def largest_teams(session: Session, by: Actor, most: int) -> list[tuple[str, int]]:
    """The teams with the most jobs that an actor may see, each with its number of jobs: those of several jobs."""
    return listing.largest_teams(session, by.job_id_prefix, most)


def load_jobs(ids: Sequence[int]) -> list[ListedJob]:
    """Load jobs in the order of their numbers, without those deleted in the meantime."""
    jobs, note_of = reading.listings(ids), of_jobs(ids)
    return [ListedJob(jobs[number], note_of.get(number)) for number in ids if number in jobs]


@read_only
def load_trials(session: Session, ids: Sequence[int]) -> list[ListedTrial]:
    """Load trials in the order of their numbers, without those deleted in the meantime."""
    trials = {trial.id: trial for trial in listing.trials_numbered(session, ids)}
    jobs = {job.id: job for job in queries.jobs_numbered(session, {trial.job for trial in trials.values()})}
    found = [trials[number] for number in ids if number in trials]
    notes_of = notes.of_jobs(session, jobs, {trial.number for trial in found})
    facts = facts_of(session, list(jobs.values()))
    return [
        _listed_trial(jobs[trial.job], facts[trial.job], trial, notes_of.get((trial.job, trial.number)))
        for trial in found
        if trial.job in facts
    ]


@read_only
def load_audit(session: Session, ids: Sequence[int]) -> list[AuditRecord]:
    """Load entries of the audit log in the order of their numbers."""
    entries = {entry.id: entry for entry in listing.entries_numbered(session, ids)}
    return [audit_record(entries[number]) for number in ids if number in entries]


def _listed_trial(job: Job, facts: Facts, trial: Trial, note: Note | None) -> ListedTrial:
    spec = states.core_spec(job)
    return ListedTrial(
        job_id=job.job_id,
        number=trial.number,
        batch_size=trial.batch_size,
        default_batch_size=spec.default_batch_size,
        recommended_batch_size=facts.recommended,
        outcome_code=trial.outcome_code,
        energy_j=trial.energy_j,
        time_s=trial.time_s,
        cost_j=run_cost(spec, trial.energy_j, trial.time_s),
        epochs=trial.epochs,
        host=trial.host,
        energy_source=trial.energy_source,
        started_at=utc(trial.started_at),
        reason=trial.reason,
        outcome=trial.outcome,
        note=note_record(note),
    )
