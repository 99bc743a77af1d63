"""How a run stands, in one word and in a few: the same for the admin page, the API, the CSV files and the terminal.

It follows from the outcome code of the run's trial alone. Decisions read `state.TrialStatus` instead, which says
whether a trial has a verdict.
"""

from collections.abc import Mapping
from enum import StrEnum

from .state import EndCode, VerdictCode


class RunStatus(StrEnum):
    """How a run stands."""

    RUNNING = "running"
    CONVERGED = "converged"
    FAILED = "failed"
    """It has a verdict, and has not converged. The outcome code is the reason."""
    PRICED_OUT = "priced_out"
    """Its first epoch cost too much. Its batch size has not failed."""
    CRASHED = "crashed"
    """It broke by an error."""
    LOST = "lost"
    """Nothing was heard of it until its lease expired."""
    ENDED = "ended"
    """A user ended it, or its training came to its end without a verdict."""
    MEASURED = "measured"
    """It ended as a calibration run, and the target is not learnt yet."""


CODES: Mapping[str, tuple[str, ...]] = {
    RunStatus.CONVERGED: (VerdictCode.CONVERGED,),
    RunStatus.FAILED: (
        VerdictCode.COST_BOUND,
        VerdictCode.MAX_EPOCHS,
        VerdictCode.DIVERGED,
        VerdictCode.OUT_OF_MEMORY,
        VerdictCode.TRAINING_OVER,
    ),
    RunStatus.PRICED_OUT: (VerdictCode.PRICED_OUT,),
    RunStatus.CRASHED: (EndCode.ENDED,),
    RunStatus.LOST: (EndCode.LOST,),
    RunStatus.ENDED: (EndCode.LEFT, EndCode.STOPPED),
    RunStatus.MEASURED: (VerdictCode.CALIBRATED,),
}
"""The outcome codes of each status but `RUNNING`, which has none."""
_STATUS_OF = {code: RunStatus(status) for status, codes in CODES.items() for code in codes}


def run_status(outcome_code: str | None) -> RunStatus:
    """Return how a run stands.

    Args:
        outcome_code: the outcome code of its trial; None: the trial has not ended.
    """
    return RunStatus.RUNNING if outcome_code is None else _STATUS_OF[outcome_code]


def in_words(outcome_code: str | None) -> str:
    """Return how a run stands in a few words, such as `failed: max epochs`, with the reason that the code gives."""
    status = run_status(outcome_code)
    if status is RunStatus.ENDED:
        return "ended by a user" if outcome_code == EndCode.STOPPED else "ended by its training"
    return (f"failed: {outcome_code}" if status is RunStatus.FAILED else status).replace("_", " ")
