"""What a job knows about each of its batch sizes, for people to look at."""

from dataclasses import dataclass

from backend.core.cost import trial_cost
from backend.core.policies import ruled_out
from backend.core.state import JobState, Trial, TrialStatus


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


def summarize(state: JobState) -> list[SizeSummary]:
    """A summary of every batch size of the job, ascending."""
    by_size: dict[int, list[Trial]] = {size: [] for size in state.spec.batch_sizes}
    for trial in state.trials:
        by_size[trial.batch_size].append(trial)
    reasons = ruled_out(state)
    return [_summary(state, size, trials, reasons.get(size)) for size, trials in by_size.items()]


def best_batch_size(summaries: list[SizeSummary]) -> int | None:
    """The batch size with the lowest mean cost of converged runs, None if nothing has converged."""
    known = [(summary.mean_cost_j, summary.batch_size) for summary in summaries if summary.mean_cost_j is not None]
    return min(known)[1] if known else None


def _summary(state: JobState, size: int, trials: list[Trial], reason: str | None) -> SizeSummary:
    ended = [trial for trial in trials if trial.status is TrialStatus.SUCCEEDED]
    converged = [trial for trial in ended if trial.converged]
    return SizeSummary(
        batch_size=size,
        runs=len(ended),
        converged=len(converged),
        lost=sum(trial.status is TrialStatus.FAILED for trial in trials),
        mean_cost_j=_mean([trial_cost(state.spec, trial) for trial in converged]),
        mean_energy_j=_mean([trial.energy_j for trial in converged]),
        mean_time_s=_mean([trial.time_s for trial in converged]),
        mean_epochs=_mean([float(trial.epochs) for trial in converged]),
        ruled_out=reason,
    )


def _mean(values: list[float]) -> float | None:
    return sum(values) / len(values) if values else None
