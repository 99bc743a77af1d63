"""The summary of a `zeus` job's ended runs. It grows by one run at a time.

It holds the figures that the bandit and the pruning read. Decisions are made in `thompson` and `pruning`.
"""

from dataclasses import dataclass, field, replace
from functools import reduce

from ..cost import trial_cost
from ..state import EndedSummary, JobState, Spec, Trial, TrialStatus, TrialType


@dataclass(frozen=True, slots=True)
class Rewards:
    """The rewards of one batch size, in joules. The reward of a run with a verdict is minus its cost."""

    runs: int = 0
    mean_j: float = 0.0
    squares: float = 0.0
    """Sum of the squared differences from the mean."""
    latest_j: tuple[float, ...] = ()
    """The rewards inside the job's window, oldest first; empty if the job has no window."""


@dataclass(frozen=True, slots=True)
class Results(EndedSummary):
    """The summary. No part of it is changed in place."""

    rewards: dict[int, Rewards] = field(default_factory=dict)
    """By batch size; only batch sizes with a reward."""
    explored: tuple[Trial, ...] = ()
    """The runs of the pruning, in the order of their ends."""
    cheapest: Trial | None = None
    """The converged run with the lowest cost above 0, which is no measurement; of equal ones, the earliest."""


def results(state: JobState) -> Results:
    """Summarize all ended runs of a job."""
    summary = Results() if state.summary is None else state.summary
    if not isinstance(summary, Results):
        raise TypeError(f"{type(summary).__name__} is the summary of another policy")
    ended = [trial for trial in state.trials if trial.status is TrialStatus.SUCCEEDED]
    ended.sort(key=lambda trial: trial.ended or 0)
    return reduce(lambda before, trial: with_run(state.spec, before, trial), ended, summary)


def with_run(spec: Spec, summary: Results, trial: Trial) -> Results:
    """Return the summary with one more run, which has ended with a verdict."""
    cost_j = trial_cost(spec, trial)
    of_size = with_reward(spec, summary.rewards.get(trial.batch_size, Rewards()), -cost_j)
    return replace(
        summary,
        last=trial,
        rewards=summary.rewards | {trial.batch_size: of_size},
        explored=(*summary.explored, trial) if _explores(trial) else summary.explored,
        cheapest=_cheaper(spec, summary.cheapest, trial) if trial.converged and cost_j > 0 else summary.cheapest,
    )


def _explores(trial: Trial) -> bool:
    """Return whether a run counts in the pruning. A run that taught the job its target has tried the default."""
    return trial.type is TrialType.PRUNING or (trial.type is TrialType.CALIBRATION and bool(trial.converged))


def with_reward(spec: Spec, rewards: Rewards, reward_j: float) -> Rewards:
    """Return the rewards with one more. Mean and squares are updated by Welford's method (Technometrics 4, 1962)."""
    runs = rewards.runs + 1
    mean_j = rewards.mean_j + (reward_j - rewards.mean_j) / runs
    return Rewards(
        runs,
        mean_j,
        rewards.squares + (reward_j - rewards.mean_j) * (reward_j - mean_j),
        (*rewards.latest_j, reward_j)[-spec.window_size :] if spec.window_size else (),
    )


def _cheaper(spec: Spec, cheapest: Trial | None, trial: Trial) -> Trial:
    if cheapest is None:
        return trial
    return min(cheapest, trial, key=lambda candidate: (trial_cost(spec, candidate), candidate.number))
