"""Figures about each batch size of a job, for display. `savings` builds on them; no decision reads them."""

from collections.abc import Iterable
from dataclasses import dataclass

from backend.core.cost import run_cost
from backend.core.state import Spec, TrialStatus


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
    """Figures of one batch size. Means are over its converged runs; None before the first converged run."""

    batch_size: int
    runs: int
    converged: int
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


def best_batch_size(summaries: list[SizeSummary]) -> int | None:
    """Return the batch size with the lowest mean cost of converged runs; None if no run has converged."""
    costs = [(summary.mean_cost_j, summary.batch_size) for summary in summaries if summary.mean_cost_j is not None]
    return min(costs)[1] if costs else None


def _summary(spec: Spec, size: int, totals: list[Totals], reason: str | None) -> SizeSummary:
    converged = [group for group in totals if group.converged]
    number = sum(group.trials for group in converged)
    metrics = sum(group.best_metrics for group in converged)
    energy_j, time_s, epochs = (
        sum(getattr(group, name) for group in converged) / number if number else None
        for name in ("energy_j", "time_s", "epochs")
    )
    return SizeSummary(
        batch_size=size,
        runs=sum(group.trials for group in totals if group.status is TrialStatus.SUCCEEDED),
        converged=number,
        lost=sum(group.trials for group in totals if group.status is TrialStatus.FAILED),
        mean_cost_j=None if energy_j is None or time_s is None else run_cost(spec, energy_j, time_s),
        mean_energy_j=energy_j,
        mean_time_s=time_s,
        mean_epochs=epochs,
        mean_best_metric=sum(group.best_metric for group in converged) / metrics if metrics else None,
        ruled_out=reason,
    )
