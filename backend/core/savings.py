"""The savings of a job: the cost of its recurrences at one fixed batch size, minus the cost that the job had.

A recurrence is a run that converged. The cost of failed runs counts as spent and adds no recurrence. A recurrence at a
fixed batch size is valued at the mean cost of the converged runs with that batch size.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import accumulate

from .cost import run_cost, trial_cost
from .state import Spec, Trial, TrialStatus
from .summary import SizeSummary, Totals, lowest_mean_size, summarize


@dataclass(frozen=True, slots=True)
class Usage:
    """Energy, time, and their cost."""

    energy_j: float
    time_s: float
    cost_j: float


@dataclass(frozen=True, slots=True)
class Savings:
    """The usage and the savings of a job. Negative savings are a loss; None: that batch size has never converged."""

    launches: int
    """Runs that have ended."""
    recurrences: int
    """Runs that converged."""
    spent: Usage
    """Usage of all runs that have ended."""
    best_batch_size: int | None
    """The batch size with the lowest mean cost."""
    against_default: Usage | None
    """Savings against all recurrences at the default batch size."""
    against_best: Usage | None
    """Savings against all recurrences at the best batch size, which was not known in advance."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over runs that have ended."""

    runs: int = 0
    recurrences: int = 0
    """Runs that converged."""
    energy_j: float = 0.0
    time_s: float = 0.0
    cost_j: float = 0.0

    def __add__(self, other: "Sums") -> "Sums":
        """Return the sums over the runs of both."""
        return Sums(*(getattr(self, name) + getattr(other, name) for name in SUMMED))

    def __neg__(self) -> "Sums":
        """Return what to add so that these runs no longer count."""
        return Sums(*(-getattr(self, name) for name in SUMMED))

    @property
    def usage(self) -> Usage:
        """What the runs have used. The rounding of sums must not make it negative."""
        return Usage(max(0.0, self.energy_j), max(0.0, self.time_s), max(0.0, self.cost_j))


SUMMED = tuple(field.name for field in fields(Sums))
"""Names of the sums."""


def team_of(job_id: str) -> str:
    """Return the start of a job's id that names its team: up to the first `/` or `-`; the id itself if it has none."""
    return re.split("[/-]", job_id, maxsplit=1)[0] or job_id


def share_saved(saved_j: float, spent_j: float) -> float | None:
    """Return the savings as a share of what the same recurrences would have used; None: they would have used nothing.

    Args:
        saved_j: the savings.
        spent_j: what was used instead.
    """
    return saved_j / (saved_j + spent_j) if saved_j + spent_j > 0 else None


def savings(spec: Spec, totals: Sequence[Totals]) -> Savings:
    """Compute the savings of a job so far.

    Args:
        spec: the job's spec.
        totals: sums over all trials of the job. Running trials do not count yet.
    """
    ended = [group for group in totals if group.status is not TrialStatus.DISPATCHED]
    spent = _usage(spec, sum(group.energy_j for group in ended), sum(group.time_s for group in ended))
    recurrences = sum(group.trials for group in ended if group.converged)
    summaries = {summary.batch_size: summary for summary in summarize(spec, ended, {})}
    best = lowest_mean_size(summaries.values())
    return Savings(
        launches=sum(group.trials for group in ended),
        recurrences=recurrences,
        spent=spent,
        best_batch_size=best,
        against_default=_against(spec, recurrences, spent, summaries[spec.default_batch_size]),
        against_best=None if best is None else _against(spec, recurrences, spent, summaries[best]),
    )


def regret(spec: Spec, totals: Sequence[Totals], sums: Sums) -> Usage | None:
    """Return what some runs of a job have used above their recurrences at the best batch size; None: there is none.

    Args:
        spec: the job's spec.
        totals: sums over all trials of the job, which tell the best batch size.
        sums: sums over the runs.
    """
    of_job = savings(spec, totals)
    if of_job.against_best is None or not of_job.recurrences:
        return None
    number, saved, spent, usage = sums.recurrences / of_job.recurrences, of_job.against_best, of_job.spent, sums.usage
    return Usage(
        usage.energy_j - number * (saved.energy_j + spent.energy_j),
        usage.time_s - number * (saved.time_s + spent.time_s),
        usage.cost_j - number * (saved.cost_j + spent.cost_j),
    )


def saved_by_trial(spec: Spec, per_recurrence_j: float, before_j: float, ended: Iterable[Trial]) -> list[float]:
    """Return the cumulative savings, in joules of cost, after each trial.

    Args:
        spec: the job's spec.
        per_recurrence_j: the cost of a recurrence to compare with.
        before_j: the savings of the trials before these.
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
