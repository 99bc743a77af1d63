"""A job's past, told as rows; a joule costs one, and time costs nothing."""

from collections.abc import Iterable
from typing import Any

from backend.core.policies import ruled_out
from backend.core.state import JobState, Spec, Trial, TrialStatus, TrialType
from backend.core.summary import SizeSummary, Totals, summarize
from tests.specs import core_spec

LOST = "lost"
RUNNING = "running"

Row = tuple[int, float, bool | str]
"""Batch size, cost, and whether it converged; or `LOST`, or `RUNNING`."""


def trial(number: int, row: Row, kind: TrialType = TrialType.PRUNING, **changes: Any) -> Trial:
    """The trial of a row, begun and ended before the next one."""
    batch_size, cost, outcome = row
    status = {LOST: TrialStatus.FAILED, RUNNING: TrialStatus.DISPATCHED}.get(str(outcome), TrialStatus.SUCCEEDED)
    told: dict[str, Any] = {
        "number": number,
        "batch_size": batch_size,
        "type": kind,
        "status": status,
        "converged": outcome if isinstance(outcome, bool) else None,
        "energy_j": cost,
        "time_s": 0.0,
        "epochs": 1,
        "started": 2 * number,
        "ended": None if outcome == RUNNING else 2 * number + 1,
    }
    return Trial(**told | changes)


def story(*rows: Row, kind: TrialType = TrialType.PRUNING, spec: Spec | None = None) -> JobState:
    """A job whose runs came one after the other."""
    trials = (trial(number, row, kind) for number, row in enumerate(rows, 1))
    return JobState(spec or core_spec(), tuple(trials))


def with_trials(state: JobState, trials: Iterable[Trial]) -> JobState:
    """The same job with other trials."""
    return JobState(state.spec, tuple(trials))


def running(state: JobState, batch_size: int = 16, **changes: Any) -> Trial:
    """A trial that has just been given out, to be judged."""
    return trial(len(state.trials) + 1, (batch_size, 0.0, RUNNING), **changes)


def summary_of(state: JobState) -> list[SizeSummary]:
    """What is known of a job's batch sizes."""
    return summarize(state.spec, totals_of(state.trials), ruled_out(state))


def totals_of(trials: Iterable[Trial]) -> list[Totals]:
    """Each trial as a sum of its own."""
    return [Totals(t.batch_size, t.status, t.converged, 1, t.energy_j, t.time_s, t.epochs) for t in trials]
