"""Figures about each batch size of a job, for display. `savings` builds on them; no decision reads them.

The best batch size has two meanings, which may differ: the policy's recommendation, and the lowest mean cost so far.
`best` names both, each by its name, for every place that shows them.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from lightning_bso.quantities import joules

from . import policies
from .cost import run_cost
from .state import JobState, Spec, TrialStatus


@dataclass(frozen=True, slots=True)
class Totals:
    """The sums over the trials of one batch size that have the same status and outcome."""

    batch_size: int
    status: TrialStatus
    converged: bool | None
    trials: int
    energy_j: float
    time_s: float
    epochs: float
    best_metrics: int
    """Number of the trials with a best metric. Trials of earlier releases have none."""
    best_metric: float
    """Sum of these metrics."""


@dataclass(frozen=True, slots=True)
class SizeSummary:
    """Figures of one batch size. Means are over its converged runs; None before the first converged run.

    `runs` are those that converged or failed. Runs that were priced out or lost are counted apart.
    """

    batch_size: int
    runs: int
    converged: int
    priced_out: int
    lost: int
    mean_cost_j: float | None
    mean_energy_j: float | None
    mean_time_s: float | None
    mean_epochs: float | None
    mean_best_metric: float | None
    ruled_out: str | None


def summarize(spec: Spec, totals: Iterable[Totals], ruled_out: dict[int, str]) -> list[SizeSummary]:
    """Summarize every batch size of a job, ascending.

    Args:
        spec: the job's spec.
        totals: sums over the job's trials.
        ruled_out: the batch sizes that are ruled out, each with the reason.
    """
    by_size: dict[int, list[Totals]] = {size: [] for size in spec.batch_sizes}
    for group in totals:
        by_size[group.batch_size].append(group)
    return [_summary(spec, size, of_size, ruled_out.get(size)) for size, of_size in by_size.items()]


@dataclass(frozen=True, slots=True)
class Best:
    """The best batch size of a job, in its two meanings."""

    recommended: int | None
    """The batch size that the policy believes to cost least, of those that have converged; None: it names none."""
    lowest_mean: int | None
    """The batch size with the lowest mean cost of converged runs; None: no run has converged."""
    text: str
    """Both in words. The second is left out if it is the same batch size."""


def best(state: JobState, summaries: Sequence[SizeSummary]) -> Best:
    """Return the best batch size of a job.

    Args:
        state: the job.
        summaries: figures of its batch sizes, since the last reset.
    """
    figures = {summary.batch_size: summary for summary in summaries}
    recommended = policies.recommended(state, {size for size, summary in figures.items() if summary.converged})
    lowest_mean = lowest_mean_size(summaries)
    parts = []
    if recommended is not None:
        parts.append(f"recommended: {_costs(figures[recommended])}")
    if lowest_mean is not None and lowest_mean != recommended:
        parts.append(f"lowest mean so far: {_costs(figures[lowest_mean])}")
    return Best(recommended, lowest_mean, "; ".join(parts) or "no batch size has converged yet")


def lowest_mean_size(summaries: Iterable[SizeSummary]) -> int | None:
    """Return the batch size with the lowest mean cost of converged runs; None if no run has converged."""
    costs = [(summary.mean_cost_j, summary.batch_size) for summary in summaries if summary.mean_cost_j is not None]
    return min(costs)[1] if costs else None


def _costs(summary: SizeSummary) -> str:
    runs = "in one run" if summary.converged == 1 else f"on average of {summary.converged} runs"
    return f"{summary.batch_size}, cost {joules(summary.mean_cost_j)} {runs}"


def _summary(spec: Spec, size: int, totals: list[Totals], reason: str | None) -> SizeSummary:
    ended = [group for group in totals if group.status is TrialStatus.SUCCEEDED]
    converged = [group for group in totals if group.converged]
    number = sum(group.trials for group in converged)
    metrics = sum(group.best_metrics for group in converged)
    energy_j, time_s, epochs = (
        sum(getattr(group, name) for group in converged) / number if number else None
        for name in ("energy_j", "time_s", "epochs")
    )
    return SizeSummary(
        batch_size=size,
        runs=sum(group.trials for group in ended if group.converged is not None),
        converged=number,
        priced_out=sum(group.trials for group in ended if group.converged is None),
        lost=sum(group.trials for group in totals if group.status is TrialStatus.FAILED),
        mean_cost_j=None if energy_j is None or time_s is None else run_cost(spec, energy_j, time_s),
        mean_energy_j=energy_j,
        mean_time_s=time_s,
        mean_epochs=epochs,
        mean_best_metric=sum(group.best_metric for group in converged) / metrics if metrics else None,
        ruled_out=reason,
    )
