"""A job's history as rows. In a test's spec a joule costs 1, and time costs nothing."""

from collections.abc import Iterable
from typing import Any

from backend.core.policies import ruled_out
from backend.core.state import JobState, Spec, Trial, TrialStatus, TrialType
from backend.core.summary import SizeSummary, Totals, summarize
from tests.specs import core_spec

LOST = "lost"
RUNNING = "running"
PRICED_OUT = "priced out"

Row = tuple[int, float, bool | str]
"""Batch size, cost, and whether it converged; or `LOST`, `RUNNING` or `PRICED_OUT`."""


def trial(number: int, row: Row, kind: TrialType = TrialType.PRUNING, **changes: Any) -> Trial:
    """Return the trial of a row. It starts and ends before the next row's trial."""
    batch_size, cost, outcome = row
    status = {LOST: TrialStatus.FAILED, RUNNING: TrialStatus.DISPATCHED}.get(str(outcome), TrialStatus.SUCCEEDED)
    values: dict[str, Any] = {
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
    return Trial(**values | changes)


def story(*rows: Row, kind: TrialType = TrialType.PRUNING, spec: Spec | None = None) -> JobState:
    """Return a job whose runs came one after the other."""
    trials = (trial(number, row, kind) for number, row in enumerate(rows, 1))
    return JobState(spec or core_spec(), tuple(trials))


def with_trials(state: JobState, trials: Iterable[Trial]) -> JobState:
    """Return the same job with other trials."""
    return JobState(state.spec, tuple(trials))


def running(state: JobState, batch_size: int = 16, **changes: Any) -> Trial:
    """Return a trial that has just been dispatched, to be judged."""
    return trial(len(state.trials) + 1, (batch_size, 0.0, RUNNING), **changes)


def summary_of(state: JobState) -> list[SizeSummary]:
    """Summarize a job's batch sizes."""
    return summarize(state.spec, totals_of(state.trials), ruled_out(state))


def totals_of(trials: Iterable[Trial]) -> list[Totals]:
    """Return each trial as totals of its own."""
    return [Totals(t.batch_size, t.status, t.converged, 1, t.energy_j, t.time_s, t.epochs, 0, 0.0) for t in trials]
