"""What a job has saved: what it has cost, beside what its recurrences would have cost with one batch size alone.

A recurrence is a run that converged; what the failed ones before it cost is paid for it. A recurrence with another
batch size is put down at the mean cost of that one's converged runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from backend.core.cost import run_cost, trial_cost
from backend.core.state import Spec, Trial, TrialStatus
from backend.core.summary import SizeSummary, Totals, best_batch_size, summarize


@dataclass(frozen=True, slots=True)
class Usage:
    """Energy, time, and the cost that they come to."""

    energy_j: float
    time_s: float
    cost_j: float


@dataclass(frozen=True, slots=True)
class Savings:
    """What a job has spent and saved. Negative savings are a loss; None: that batch size has never converged."""

    launches: int
    """Runs that have ended."""
    recurrences: int
    """Those that converged."""
    spent: Usage
    """By all that have ended."""
    best_batch_size: int | None
    """The one with the lowest mean cost."""
    against_default: Usage | None
    """Had every recurrence had the default batch size."""
    against_best: Usage | None
    """Had every recurrence had the best one, as nobody knew beforehand."""


def savings(spec: Spec, totals: Sequence[Totals]) -> Savings:
    """What a job has saved so far.

    Args:
        spec: the job's spec.
        totals: all its trials; those that run do not count yet.
    """
    ended = [one for one in totals if one.status is not TrialStatus.DISPATCHED]
    spent = _usage(spec, sum(one.energy_j for one in ended), sum(one.time_s for one in ended))
    recurrences = sum(one.trials for one in ended if one.converged)
    summaries = {summary.batch_size: summary for summary in summarize(spec, ended, {})}
    best = best_batch_size(list(summaries.values()))
    return Savings(
        launches=sum(one.trials for one in ended),
        recurrences=recurrences,
        spent=spent,
        best_batch_size=best,
        against_default=_against(spec, recurrences, spent, summaries[spec.default_batch_size]),
        against_best=None if best is None else _against(spec, recurrences, spent, summaries[best]),
    )


def saved_by_trial(spec: Spec, per_recurrence_j: float, before_j: float, ended: Iterable[Trial]) -> list[float]:
    """What has been saved, in joules of cost, after each of some trials.

    Args:
        spec: the job's spec.
        per_recurrence_j: what a recurrence would have cost.
        before_j: what the trials before these have saved.
        ended: the trials, in the order of their ends.
    """
    steps = (per_recurrence_j * bool(trial.converged) - trial_cost(spec, trial) for trial in ended)
    return list(accumulate(steps, initial=before_j))[1:]


def _against(spec: Spec, recurrences: int, spent: Usage, summary: SizeSummary) -> Usage | None:
    if summary.mean_energy_j is None or summary.mean_time_s is None:
        return None
    energy_j, time_s = summary.mean_energy_j * recurrences, summary.mean_time_s * recurrences
    cost_j = run_cost(spec, energy_j, time_s)
    return Usage(energy_j - spent.energy_j, time_s - spent.time_s, cost_j - spent.cost_j)


def _usage(spec: Spec, energy_j: float, time_s: float) -> Usage:
    return Usage(energy_j, time_s, run_cost(spec, energy_j, time_s))
