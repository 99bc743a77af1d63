"""What a job knows about each of its batch sizes, for people to look at."""

from collections.abc import Iterable
from dataclasses import dataclass

from backend.core.cost import run_cost
from backend.core.state import Spec, TrialStatus


@dataclass(frozen=True, slots=True)
class Totals:
    """The trials of one batch size that have come to the same, added up."""

    batch_size: int
    status: TrialStatus
    converged: bool | None
    trials: int
    energy_j: float
    time_s: float
    epochs: float


@dataclass(frozen=True, slots=True)
class SizeSummary:
    """One batch size. Means are over its converged runs, None before the first."""

    batch_size: int
    runs: int
    converged: int
    lost: int
    mean_cost_j: float | None
    mean_energy_j: float | None
    mean_time_s: float | None
    mean_epochs: float | None
    ruled_out: str | None


def summarize(spec: Spec, totals: Iterable[Totals], ruled_out: dict[int, str]) -> list[SizeSummary]:
    """A summary of every batch size of a job, ascending.

    Args:
        spec: the job's spec.
        totals: its trials.
        ruled_out: why batch sizes are not given any more.
    """
    by_size: dict[int, list[Totals]] = {size: [] for size in spec.batch_sizes}
    for one in totals:
        by_size[one.batch_size].append(one)
    return [_summary(spec, size, of_size, ruled_out.get(size)) for size, of_size in by_size.items()]


def best_batch_size(summaries: list[SizeSummary]) -> int | None:
    """The batch size with the lowest mean cost of converged runs, None if nothing has converged."""
    known = [(summary.mean_cost_j, summary.batch_size) for summary in summaries if summary.mean_cost_j is not None]
    return min(known)[1] if known else None


def _summary(spec: Spec, size: int, totals: list[Totals], reason: str | None) -> SizeSummary:
    converged = [one for one in totals if one.converged]
    number = sum(one.trials for one in converged)
    energy_j, time_s, epochs = (
        sum(getattr(one, name) for one in converged) / number if number else None
        for name in ("energy_j", "time_s", "epochs")
    )
    return SizeSummary(
        batch_size=size,
        runs=sum(one.trials for one in totals if one.status is TrialStatus.SUCCEEDED),
        converged=number,
        lost=sum(one.trials for one in totals if one.status is TrialStatus.FAILED),
        mean_cost_j=None if energy_j is None or time_s is None else run_cost(spec, energy_j, time_s),
        mean_energy_j=energy_j,
        mean_time_s=time_s,
        mean_epochs=epochs,
        ruled_out=reason,
    )
