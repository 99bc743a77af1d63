"""Rows of notes on jobs and trials. A job's own note has the trial number 0."""

from collections.abc import Collection
from datetime import datetime

from sqlalchemy import Connection, delete, select
from sqlalchemy.orm import Session

from . import rows
from .models import Job, Note


def find(session: Session, job: Job, trial_number: int) -> Note | None:
    """Return the note on a job, or on a trial of it."""
    return session.get(Note, (job.id, trial_number))


def of_jobs(session: Session, jobs: Collection[int], numbers: Collection[int]) -> dict[tuple[int, int], Note]:
    """Return the notes on some jobs' trials with some numbers, by job and number. 0: on the jobs themselves."""
    notes = session.scalars(select(Note).where(Note.job.in_(jobs), Note.trial_number.in_(numbers)))
    return {(note.job, note.trial_number): note for note in notes}


def replace(
    connection: Connection, job: Job, trial_number: int, text: str, tags: str, actor: str, at: datetime
) -> None:
    """Store a note in place of an earlier one. An empty one is removed. The job must be locked."""
    connection.execute(delete(Note).where(Note.job == job.id, Note.trial_number == trial_number))
    if text or tags:
        note = rows.new(Note, job=job.id, trial_number=trial_number, text=text, tags=tags, actor=actor, at=at)
        rows.save(connection, note)
