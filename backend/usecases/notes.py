"""Notes and tags on jobs and trials: what users want to remember of them. No decision reads them."""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from ..core import tags
from ..database import notes, queries, store
from ..database.models import Note
from ..database.transactions import Connection, Session, read_only, transaction
from ..errors import InvalidField, UnknownTrial
from . import audit
from .audit import Action, Actor
from .reading import get_job
from .records import utc

MAX_NOTE_LENGTH = 2000


@dataclass(frozen=True, slots=True)
class NoteRecord:
    """A note as the admin page shows it."""

    text: str
    tags: list[str]
    actor: str
    at: datetime


@read_only
def read(session: Session, job_id: str, trial_number: int, by: Actor) -> NoteRecord | None:
    """Return the note on a job, for the number 0, or on a trial; None: there is none.

    Raises:
        UnknownJob: there is no such job.
    """
    return note_record(notes.find(session, get_job(session, job_id, by), trial_number))


@read_only
def of_jobs(session: Session, ids: Collection[int]) -> dict[int, NoteRecord]:
    """Return the notes on some jobs by their numbers in the database, without the notes on their trials."""
    return {job: _record(note) for (job, _), note in notes.of_jobs(session, ids, [0]).items()}


@transaction
def write(connection: Connection, job_id: str, trial_number: int, text: str, tags_text: str, by: Actor) -> None:
    """Write the note on a job, for the number 0, or on a trial, in place of an earlier one.

    Raises:
        UnknownJob: there is no such job.
        UnknownTrial: the job has no such trial.
        InvalidField: the text is too long, or a tag is not a word.
    """
    by.check_may_see(job_id)
    text = text.strip()
    if len(text) > MAX_NOTE_LENGTH:
        raise InvalidField("note", f"it has {len(text)} characters; {MAX_NOTE_LENGTH} are allowed")
    try:
        words = tags.parse(tags_text)
    except ValueError as error:
        raise InvalidField("tags", str(error)) from None
    with store.locked_job(connection, job_id) as (job, at):
        if trial_number and not queries.has_trial(connection, job, trial_number):
            raise UnknownTrial(f"job {job_id!r} has no trial {trial_number}")
        notes.replace(connection, job, trial_number, text, tags.pack(words), by.name, at)
        about = f"trial {trial_number}" if trial_number else "job"
        written = f"{text} {tags.pack(words)}".strip() or "removed"
        audit.record(connection, by, Action.NOTE, job_id, f"{about}: {written}")


def note_record(note: Note | None) -> NoteRecord | None:
    """Return a stored note as the admin page shows it."""
    return None if note is None else _record(note)


def _record(note: Note) -> NoteRecord:
    return NoteRecord(note.text, note.tags.split(), note.actor, utc(note.at))
