"""What a job knows about each of its batch sizes, for people to look at."""

from collections.abc import Iterable
from dataclasses import dataclass

from backend.core.cost import trial_cost
from backend.core.state import Spec, Trial, TrialStatus


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


def summarize(spec: Spec, trials: Iterable[Trial], ruled_out: dict[int, str]) -> list[SizeSummary]:
    """A summary of every batch size of a job, ascending.

    Args:
        spec: the job's spec.
        trials: its trials.
        ruled_out: why batch sizes are not given any more.
    """
    by_size: dict[int, list[Trial]] = {size: [] for size in spec.batch_sizes}
    for trial in trials:
        by_size[trial.batch_size].append(trial)
    return [_summary(spec, size, of_size, ruled_out.get(size)) for size, of_size in by_size.items()]


def best_batch_size(summaries: list[SizeSummary]) -> int | None:
    """The batch size with the lowest mean cost of converged runs, None if nothing has converged."""
    known = [(summary.mean_cost_j, summary.batch_size) for summary in summaries if summary.mean_cost_j is not None]
    return min(known)[1] if known else None


def _summary(spec: Spec, size: int, trials: list[Trial], reason: str | None) -> SizeSummary:
    ended = [trial for trial in trials if trial.status is TrialStatus.SUCCEEDED]
    converged = [trial for trial in ended if trial.converged]
    return SizeSummary(
        batch_size=size,
        runs=len(ended),
        converged=len(converged),
        lost=sum(trial.status is TrialStatus.FAILED for trial in trials),
        mean_cost_j=_mean([trial_cost(spec, trial) for trial in converged]),
        mean_energy_j=_mean([trial.energy_j for trial in converged]),
        mean_time_s=_mean([trial.time_s for trial in converged]),
        mean_epochs=_mean([float(trial.epochs) for trial in converged]),
        ruled_out=reason,
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
