"""The facts that follow from all trials of a job, for lists and the overview: its stage, its best batch sizes.

They are worked out once for each change of a job. A page about one job reads the job's state itself (`dashboard`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from threading import Lock

from cachetools import LRUCache

from ..core.state import Stage, TrialStatus
from ..core.summary import best, summarize
from ..database import queries, states
from ..database.models import Job
from ..database.queries import Row
from ..database.transactions import Session
from .records import stage_of, trial_count


@dataclass(frozen=True, slots=True)
class Facts:
    """What follows from all trials of a job. The batch sizes are those since its last reset."""

    stage: Stage
    message: str
    recommended: int | None
    lowest_mean: int | None
    trials: int
    """All trials, trials before a reset included."""
    running: int


_known: LRUCache[tuple[str, datetime, int], Facts] = LRUCache(maxsize=10_000)
"""The facts by a job's id, creation and revision. Every change of a job raises its revision, whoever makes it.

A database that is put back to an earlier state counts on from there, so restart its servers (docs/server.md).
"""
_lock = Lock()


def facts_of(session: Session, jobs: Sequence[Job | Row]) -> dict[int, Facts]:
    """Return the facts of jobs by their numbers in the database, without those deleted in the meantime.

    The trials of a job that has not changed since the last time are not read.
    """
    with _lock:
        known = {job.id: _known.get((job.job_id, job.created_at, job.revision)) for job in jobs}
    found = {number: facts for number, facts in known.items() if facts is not None}
    missing = [number for number in known if number not in found]
    if not missing:
        return found
    rows = queries.jobs_numbered(session, missing)
    state_of, totals_of = states.read_states(session, rows), states.load_totals(session, missing)
    new = {}
    for row in rows:
        state, explorations = state_of[row.id], totals_of.get(row.id, {})
        sizes = best(state, summarize(state.spec, explorations.get(row.exploration, []), {}))
        all_totals = [group for of_exploration in explorations.values() for group in of_exploration]
        new[row.id] = Facts(
            *stage_of(row, state),
            sizes.recommended,
            sizes.lowest_mean,
            trial_count(all_totals),
            trial_count(all_totals, TrialStatus.DISPATCHED),
        )
    with _lock:
        _known.update({(row.job_id, row.created_at, row.revision): new[row.id] for row in rows})
    return found | new
